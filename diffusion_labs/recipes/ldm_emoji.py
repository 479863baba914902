"""Latent diffusion on captioned images."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.drawing import PREVIEW_STEPS, draw, save_grid
from diffusion_labs.recipes.emoji import kind_weights, some_captions
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.latent_diffusion import autoencoder_stage, diffusion_stage, latents_stage
from diffusion_labs.recipes.latent_model import LatentModel
from diffusion_labs.recipes.stages import Stages

KL_WEIGHT = 1e-2  # of a nat, beside the sum of absolute errors over an image
PREVIEWS = 25  # captions of the data that are drawn during training


def ldm_emoji(
    data_dir: Path,
    autoencoder_steps: int = 1200,
    steps: int = 3200,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    model_channels: int = 96,
    disc_start: int | None = None,
    size: int = 64,
    count: int | None = None,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """Latent diffusion on captioned images in WebDataset tars, such as emoji; what is transparent is white.

    Args:
        data_dir: a tar, or a folder of tars.
        autoencoder_steps: updates of the autoencoder.
        steps: updates of the network on its latents.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        model_channels: width of the network.
        disc_start: updates after which a discriminator joins the training of the autoencoder; never if not given. In
            the log ``discriminator`` falls below 1 where it finds reconstructions too smooth, and is 1, which is
            chance, where it sees no difference; what it gains on these images has not been measured.
        size: height and width of the images.
        count: only the first images of the data; all if not given.
        ema_decay: of the averaged weights of the network.
        seed: of weights, noise and the order of the data.
    """
    dataset = TarImages(data_dir, size, count=count)
    sizes = LatentModel(
        dataset.image_shape,
        captions=True,
        autoencoder_channels=(16, 32, 64, 64),
        latent_channels=8,
        model_channels=model_channels,
        channel_mult=(1, 2),
        attention_levels=(0, 1),
        condition_width=128,
        ngrams=(3, 4, 5, 6),
        pooled_text=True,
    )
    captions = some_captions(dataset.captions, PREVIEWS)

    def preview(model: nn.Module, path: Path) -> Tensor:
        images = draw(model, sizes, captions, seed=0, guidance_scale=3.0, steps=PREVIEW_STEPS)
        return save_grid(images, path, columns=5)

    how: dict[str, Any] = {"batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    return Stages(
        [
            autoencoder_stage(
                dataset, sizes, steps=autoencoder_steps, disc_start=disc_start, kl_weight=KL_WEIGHT, **how
            ),
            latents_stage(dataset, sizes),
            diffusion_stage(
                dataset,
                sizes,
                steps=steps,
                ema_decay=ema_decay,
                preview=preview,
                weights=kind_weights(dataset.captions),
                **how,
            ),
        ],
        described(sizes),
        {"": "diffusion"},
    )
