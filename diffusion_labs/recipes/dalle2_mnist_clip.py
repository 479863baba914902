"""CLIP on MNIST with captions."""

from pathlib import Path

from diffusion_labs.recipes.dalle2 import CLIPModel, Updates, dalle2_stages, part_of
from diffusion_labs.recipes.dalle2_mnist import mnist_sizes
from diffusion_labs.recipes.mnist_captions import captioned_mnist
from diffusion_labs.recipes.stages import Stages


def dalle2_mnist_clip(
    data_dir: Path | None = None,
    steps: int = 1500,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    size: int = 32,
    seed: int = 0,
) -> Stages:
    """CLIP on MNIST and captions such as "a photo of the digit three": the first stage of DALL-E 2 alone.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        steps: updates.
        batch_size: pairs of image and caption per update.
        learning_rate: the highest learning rate.
        size: images are centred on a square of this many pixels, or shrunk to it.
        seed: of weights and the order of the data.
    """
    dataset = captioned_mnist(data_dir, size)
    return dalle2_stages(
        dataset,
        part_of(mnist_sizes(dataset), CLIPModel),
        clip=Updates(steps, batch_size),
        group_field="class",
        learning_rate=learning_rate,
        seed=seed,
    )
