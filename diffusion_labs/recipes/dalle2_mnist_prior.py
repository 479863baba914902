"""The diffusion prior of DALL-E 2 on MNIST with captions."""

from pathlib import Path

from diffusion_labs.recipes.dalle2 import PriorModel, Updates, dalle2_stages, part_of
from diffusion_labs.recipes.dalle2_mnist import class_captions, mnist_sizes
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
    return dalle2_stages(
        dataset,
        part_of(mnist_sizes(dataset), PriorModel),
        clip=Updates(clip_steps, max(1, batch_size // 2)),
        prior=Updates(steps, batch_size),
        captions=class_captions(dataset),
        group_field="class",
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
