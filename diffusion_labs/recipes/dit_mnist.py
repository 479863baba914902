"""A Transformer on MNIST, and on everything in its format."""

from pathlib import Path

from diffusion_labs.data import IDXImages
from diffusion_labs.recipes.image_diffusion import ImageTransformer, image_stages
from diffusion_labs.recipes.mnist import mnist_folder
from diffusion_labs.recipes.stages import Stages


def dit_mnist(
    data_dir: Path | None = None,
    steps: int = 4000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    dim: int = 128,
    depth: int = 6,
    patch_size: int = 4,
    size: int = 32,
    ema_decay: float = 0.999,
    seed: int = 0,
) -> Stages:
    """Class-conditional diffusion of pixels by a Transformer (DiT), on MNIST or any data set in its format.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        steps: updates of the whole run.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        dim: width of the tokens, a multiple of 32.
        depth: number of blocks.
        patch_size: the side of a patch, in pixels.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    dataset = IDXImages(mnist_folder(data_dir), "train", size=size)
    sizes = ImageTransformer(
        dataset.image_shape,
        dataset.class_names,
        patch_size=patch_size,
        dim=dim,
        depth=depth,
        num_heads=dim // 32,
    )
    return image_stages(
        dataset,
        sizes,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
