"""CLIP on captioned images."""

from pathlib import Path

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.dalle2 import CLIPModel, Updates
from diffusion_labs.recipes.dalle2_emoji import emoji_stages
from diffusion_labs.recipes.stages import Stages


def dalle2_emoji_clip(
    data_dir: Path,
    steps: int = 800,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    size: int = 64,
    count: int | None = None,
    seed: int = 0,
) -> Stages:
    """CLIP on captioned images in WebDataset tars: the first stage of DALL-E 2 alone.

    Args:
        data_dir: a tar, or a folder of tars; what is transparent is white.
        steps: updates.
        batch_size: pairs of image and caption per update.
        learning_rate: the highest learning rate.
        size: height and width of the images.
        count: only the first images of the data; all if not given.
        seed: of weights and the order of the data.
    """
    return emoji_stages(
        TarImages(data_dir, size, count=count),
        CLIPModel,
        clip=Updates(steps, batch_size),
        learning_rate=learning_rate,
        seed=seed,
    )
