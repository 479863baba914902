"""The upsampler of DALL-E 2 on MNIST."""

from pathlib import Path

from diffusion_labs.recipes.dalle2 import Updates, UpsamplerModel, dalle2_stages, part_of
from diffusion_labs.recipes.dalle2_mnist import mnist_sizes
from diffusion_labs.recipes.mnist_captions import captioned_mnist
from diffusion_labs.recipes.stages import Stages


def dalle2_mnist_upsampler(
    data_dir: Path | None = None,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    size: int = 32,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """The upsampler of DALL-E 2 on MNIST alone, from half of the size.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        steps: updates.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights.
        seed: of weights, noise, crops and the order of the data.
    """
    dataset = captioned_mnist(data_dir, size)
    return dalle2_stages(
        dataset,
        part_of(mnist_sizes(dataset), UpsamplerModel),
        upsampler=Updates(steps, batch_size),
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
