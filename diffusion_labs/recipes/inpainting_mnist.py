"""Inpainting of MNIST, and everything in its format."""

from pathlib import Path

from diffusion_labs.recipes.restoration import InpaintingModel, mnist_restoration
from diffusion_labs.recipes.stages import Stages


def inpainting_mnist(
    data_dir: Path | None = None,
    steps: int = 1600,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    model_channels: int = 32,
    size: int = 32,
    ema_decay: float = 0.999,
    seed: int = 0,
) -> Stages:
    """Inpainting of MNIST or any data set in its format: strokes, rectangles and borders are hidden.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        steps: updates of the whole run.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        model_channels: width of the network.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights.
        seed: of weights, noise, what is hidden and the order of the data.
    """
    return mnist_restoration(
        InpaintingModel,
        data_dir,
        size=size,
        model_channels=model_channels,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
