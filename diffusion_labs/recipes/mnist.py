"""MNIST, and everything in its format."""

from pathlib import Path

from diffusion_labs.data import IDXImages, download_mnist
from diffusion_labs.recipes.image_diffusion import ImageModel, image_stages
from diffusion_labs.recipes.stages import Stages


def mnist(
    data_dir: Path | None = None,
    steps: int = 1600,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    model_channels: int = 32,
    size: int = 32,
    ema_decay: float = 0.999,
    seed: int = 0,
) -> Stages:
    """Class-conditional diffusion on MNIST, Fashion-MNIST or any other data set in MNIST's format.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        steps: updates of the whole run.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        model_channels: width of the network.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    dataset = IDXImages(mnist_folder(data_dir), "train", size=size)
    sizes = ImageModel(
        dataset.image_shape,
        dataset.class_names,
        model_channels=model_channels,
        channel_mult=(1, 2, 4),
        num_res_blocks=1,
        attention_levels=(1, 2),
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


def mnist_folder(data_dir: Path | None) -> Path:
    """The folder that was given, or one into which MNIST is downloaded."""
    return download_mnist(Path.home() / ".cache" / "diffusion_labs" / "mnist") if data_dir is None else data_dir
