"""The upsampler of DALL-E 2 on images in tars."""

from pathlib import Path

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.dalle2 import Updates, UpsamplerModel
from diffusion_labs.recipes.dalle2_emoji import emoji_stages
from diffusion_labs.recipes.stages import Stages


def dalle2_emoji_upsampler(
    data_dir: Path,
    steps: int = 2500,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    size: int = 64,
    decoder_size: int = 16,
    count: int | None = None,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """The upsampler of DALL-E 2 on images in WebDataset tars alone.

    Args:
        data_dir: a tar, or a folder of tars; what is transparent is white.
        steps: updates.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        size: height and width of the images.
        decoder_size: height and width of the small images.
        count: only the first images of the data; all if not given.
        ema_decay: of the averaged weights.
        seed: of weights, noise, crops and the order of the data.
    """
    return emoji_stages(
        TarImages(data_dir, size, count=count),
        UpsamplerModel,
        decoder_size=decoder_size,
        upsampler=Updates(steps, batch_size),
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
