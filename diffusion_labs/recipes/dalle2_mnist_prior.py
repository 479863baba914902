"""The diffusion prior of DALL-E 2 on MNIST with captions."""

from pathlib import Path
from typing import Any

from diffusion_labs.recipes.dalle2 import PriorModel, clip_stage, embeddings_stage, prior_stage
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.mnist_captions import captioned_mnist
from diffusion_labs.recipes.stages import Stages


def dalle2_mnist_prior(
    data_dir: Path | None = None,
    clip_steps: int = 1500,
    steps: int = 5000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    size: int = 32,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """The diffusion prior of DALL-E 2 on MNIST with captions: CLIP, the embeddings on disk, the prior on them.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        clip_steps: updates of CLIP.
        steps: updates of the prior on its embeddings.
        batch_size: embeddings per update of the prior; half as many pairs for CLIP.
        learning_rate: the highest learning rate.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights of the prior.
        seed: of weights, noise and the order of the data.
    """
    dataset = captioned_mnist(data_dir, size)
    sizes = PriorModel(dataset.image_shape, dataset.class_names)
    how: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed}
    return Stages(
        [
            clip_stage(
                dataset, sizes, steps=clip_steps, batch_size=max(1, batch_size // 2), group_field="class", **how
            ),
            embeddings_stage(dataset, sizes),
            prior_stage(
                dataset,
                sizes,
                steps=steps,
                batch_size=batch_size,
                ema_decay=ema_decay,
                captions=[dataset.caption(0, label) for label in range(len(dataset.class_names))][:10],
                **how,
            ),
        ],
        described(sizes),
    )
