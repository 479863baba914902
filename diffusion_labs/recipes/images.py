"""A folder of images."""

from pathlib import Path
from typing import Literal

from diffusion_labs.data import ImageFolder
from diffusion_labs.recipes.image_diffusion import image_sizes, image_stages
from diffusion_labs.recipes.stages import Stages


def images(
    data_dir: Path,
    size: int = 32,
    channels: Literal[1, 3] = 3,
    on_error: Literal["raise", "skip"] = "raise",
    steps: int = 20_000,
    batch_size: int = 64,
    learning_rate: float = 5e-4,
    model_channels: int = 64,
    ema_decay: float = 0.9995,
    seed: int = 0,
) -> Stages:
    """Class-conditional diffusion on a folder of images.

    Args:
        data_dir: the folder: a sub-folder per class, or a metadata.jsonl with file_name and class.
        size: images are resized and cropped to a square of this many pixels.
        channels: 3 for colour, 1 for grey.
        on_error: what to do with an image that cannot be read: stop, or skip and count it.
        steps: updates of the whole run.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        model_channels: width of the network.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    dataset = ImageFolder(data_dir, size, channels=channels, on_error=on_error)
    return image_stages(
        dataset,
        image_sizes(dataset, model_channels),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
