"""DALL-E 2 on MNIST with captions, whole."""

from pathlib import Path

from diffusion_labs.data import TemplateCaptions
from diffusion_labs.recipes.dalle2 import DALLE2Model, Updates, dalle2_stages
from diffusion_labs.recipes.mnist_captions import captioned_mnist
from diffusion_labs.recipes.stages import Stages


def dalle2_mnist(
    data_dir: Path | None = None,
    clip_steps: int = 800,
    prior_steps: int = 1500,
    decoder_steps: int = 2000,
    upsampler_steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    size: int = 32,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """DALL-E 2 on MNIST and captions such as "a photo of the digit three": text in, digits out.

    The stages: CLIP, the embeddings on disk, the diffusion prior, a decoder to half of the size, and an upsampler.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        clip_steps: updates of CLIP.
        prior_steps: updates of the prior on its embeddings.
        decoder_steps: updates of the decoder.
        upsampler_steps: updates of the upsampler.
        batch_size: images per update of the decoder and the upsampler; twice as many for CLIP and the prior.
        learning_rate: the highest learning rate of each stage.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    dataset = captioned_mnist(data_dir, size)
    return dalle2_stages(
        dataset,
        mnist_sizes(dataset),
        clip=Updates(clip_steps, 2 * batch_size),
        prior=Updates(prior_steps, 2 * batch_size),
        decoder=Updates(decoder_steps, batch_size),
        upsampler=Updates(upsampler_steps, batch_size),
        captions=class_captions(dataset),
        group_field="class",
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )


def mnist_sizes(dataset: TemplateCaptions) -> DALLE2Model:
    """The sizes of all stages for MNIST."""
    return DALLE2Model(
        dataset.image_shape,
        dataset.class_names,
        decoder_size=dataset.image_shape[1] // 2,
        decoder_channels=32,
        decoder_blocks=2,
        decoder_head_channels=16,
    )


def class_captions(dataset: TemplateCaptions) -> list[str]:
    """A caption of each of the first ten classes."""
    return [dataset.caption(0, label) for label in range(len(dataset.class_names))][:10]
