"""The diffusion prior of DALL-E 2 on captioned images."""

from pathlib import Path

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.dalle2 import PriorModel, Updates, dalle2_stages, part_of
from diffusion_labs.recipes.dalle2_emoji import emoji_sizes, some_captions
from diffusion_labs.recipes.stages import Stages


def dalle2_emoji_prior(
    data_dir: Path,
    clip_steps: int = 1200,
    steps: int = 3000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    size: int = 64,
    count: int | None = None,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """The diffusion prior of DALL-E 2 on captioned images: CLIP, the embeddings on disk, the prior on them.

    Args:
        data_dir: a tar, or a folder of tars; what is transparent is white.
        clip_steps: updates of CLIP.
        steps: updates of the prior on its embeddings.
        batch_size: embeddings per update of the prior, and pairs for CLIP.
        learning_rate: the highest learning rate.
        size: height and width of the images.
        count: only the first images of the data; all if not given.
        ema_decay: of the averaged weights of the prior.
        seed: of weights, noise and the order of the data.
    """
    dataset = TarImages(data_dir, size, count=count)
    return dalle2_stages(
        dataset,
        part_of(emoji_sizes(dataset, size // 2), PriorModel),
        clip=Updates(clip_steps, batch_size),
        prior=Updates(steps, batch_size),
        captions=some_captions(dataset),
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
