"""The decoder of DALL-E 2 on captioned images."""

from pathlib import Path

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.dalle2 import DecoderModel, Updates, dalle2_stages, part_of
from diffusion_labs.recipes.dalle2_emoji import emoji_sizes
from diffusion_labs.recipes.stages import Stages


def dalle2_emoji_decoder(
    data_dir: Path,
    clip_steps: int = 1200,
    steps: int = 7000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    size: int = 64,
    decoder_size: int = 32,
    count: int | None = None,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """The decoder of DALL-E 2 on captioned images: CLIP, the embeddings on disk, small images from them.

    Args:
        data_dir: a tar, or a folder of tars; what is transparent is white.
        clip_steps: updates of CLIP.
        steps: updates of the decoder.
        batch_size: images per update of the decoder; twice as many for CLIP.
        learning_rate: the highest learning rate.
        size: height and width of the images.
        decoder_size: height and width of the decoder's.
        count: only the first images of the data; all if not given.
        ema_decay: of the averaged weights of the decoder.
        seed: of weights, noise and the order of the data.
    """
    dataset = TarImages(data_dir, size, count=count)
    return dalle2_stages(
        dataset,
        part_of(emoji_sizes(dataset, decoder_size), DecoderModel),
        clip=Updates(clip_steps, 2 * batch_size),
        decoder=Updates(steps, batch_size),
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
