"""The decoder of DALL-E 2 on captioned images."""

from pathlib import Path

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.dalle2 import DecoderModel, Updates
from diffusion_labs.recipes.dalle2_emoji import emoji_stages
from diffusion_labs.recipes.stages import Stages


def dalle2_emoji_decoder(
    data_dir: Path,
    clip_steps: int = 800,
    steps: int = 3500,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    size: int = 64,
    decoder_size: int = 16,
    count: int | None = None,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """The decoder of DALL-E 2 on captioned images: CLIP, the embeddings on disk, small images from them.

    Args:
        data_dir: a tar, or a folder of tars; what is transparent is white.
        clip_steps: updates of CLIP.
        steps: updates of the decoder.
        batch_size: images per update of the decoder; four times as many for CLIP.
        learning_rate: the highest learning rate.
        size: height and width of the images.
        decoder_size: height and width of the decoder's.
        count: only the first images of the data; all if not given.
        ema_decay: of the averaged weights of the decoder.
        seed: of weights, noise and the order of the data.
    """
    return emoji_stages(
        TarImages(data_dir, size, count=count),
        DecoderModel,
        decoder_size=decoder_size,
        clip=Updates(clip_steps, 4 * batch_size),
        decoder=Updates(steps, batch_size),
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
