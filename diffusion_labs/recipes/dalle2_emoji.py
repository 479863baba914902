"""DALL-E 2 on captioned images, whole."""

from pathlib import Path
from typing import Any

from diffusion_labs.data import TarImages
from diffusion_labs.models.encoders import learn_merges
from diffusion_labs.recipes.dalle2 import DALLE2Model, Updates, dalle2_stages, part_of
from diffusion_labs.recipes.emoji import kind_weights, some_captions
from diffusion_labs.recipes.stages import Stages

PREVIEWS = 10  # captions of the data in previews of the prior
MERGES = 1500  # of bytes to parts of words, learnt from the captions
MAX_TOKENS = 32  # the longest caption of an emoji has 21


def dalle2_emoji(
    data_dir: Path,
    clip_steps: int = 800,
    prior_steps: int = 2500,
    decoder_steps: int = 3500,
    upsampler_steps: int = 2500,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    size: int = 64,
    decoder_size: int = 16,
    count: int | None = None,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """DALL-E 2 on captioned images in WebDataset tars, such as emoji: text in, pictures out.

    The stages: CLIP, the embeddings on disk, the diffusion prior, a decoder to small images, and an upsampler.

    Args:
        data_dir: a tar, or a folder of tars; what is transparent is white.
        clip_steps: updates of CLIP.
        prior_steps: updates of the prior on its embeddings.
        decoder_steps: updates of the decoder.
        upsampler_steps: updates of the upsampler.
        batch_size: images per update of the decoder and the upsampler; four times as many for CLIP and the prior.
        learning_rate: the highest learning rate of each stage.
        size: height and width of the images.
        decoder_size: height and width of the decoder's.
        count: only the first images of the data; all if not given.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    return emoji_stages(
        TarImages(data_dir, size, count=count),
        decoder_size=decoder_size,
        clip=Updates(clip_steps, 4 * batch_size),
        prior=Updates(prior_steps, 4 * batch_size),
        decoder=Updates(decoder_steps, batch_size),
        upsampler=Updates(upsampler_steps, batch_size),
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )


def emoji_stages(
    dataset: TarImages, kind: type[Any] = DALLE2Model, *, decoder_size: int | None = None, **how: Any
) -> Stages:
    """Stages for emoji, of which kinds that are few are seen more often than their share.

    Args:
        dataset: the images.
        kind: of the sizes of what is trained.
        decoder_size: height and width of the decoder's images, a quarter of those of the data if not given.
        **how: see ``dalle2_stages``.
    """
    sizes = emoji_sizes(dataset, decoder_size or dataset.image_shape[1] // 4)
    return dalle2_stages(
        dataset,
        sizes if kind is DALLE2Model else part_of(sizes, kind),
        captions=some_captions(dataset.captions, PREVIEWS),
        weights=kind_weights(dataset.captions),
        **how,
    )


def emoji_sizes(dataset: TarImages, decoder_size: int) -> DALLE2Model:
    """The sizes of all stages for emoji. The U-Net of the decoder works on about 8 x 8 patches."""
    return DALLE2Model(
        dataset.image_shape,
        patch_size=8,
        image_dim=128,
        image_depth=4,
        text_dim=128,
        text_depth=3,
        max_tokens=MAX_TOKENS,
        merges=learn_merges(dataset.captions, MERGES),
        decoder_size=decoder_size,
        decoder_patch=max(1, decoder_size // 8),
        decoder_channels=96,
        decoder_blocks=2,
        upsampler_channels=64,
    )
