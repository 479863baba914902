"""Pictures of what the stages of DALL-E 2 can do on their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.drawing import PREVIEW_STEPS, draw_pairs, save_grid, settings
from diffusion_labs.recipes.latent_diffusion import Images, dataset_images


def draw_nearest(
    model: Any, captions: Sequence[str], dataset: Images, gallery: Tensor, path: Path, *, columns: int = 8
) -> Tensor:
    """Write, in a row for each caption, the images whose embeddings are the nearest to samples; return the picture.

    Args:
        model: a ``DiffusionPrior``, in eval mode. It is left as it was.
        captions: one in a row.
        dataset: of the images.
        gallery: the embeddings of its first images, of length 1.
        path: of the picture.
        columns: samples for each caption.
    """
    wanted = [caption for caption in captions for _ in range(columns)]
    with settings(model.sampler, eval_steps=PREVIEW_STEPS, progress_bar=False):
        z = model.sample({"caption": wanted}, generator=seeded(range(len(wanted)))).cpu()
    nearest = (z @ gallery.T).argmax(1)
    return save_grid(dataset_images(dataset, nearest.tolist()), path, columns=columns)


def draw_decoded(decoder: Any, images: Tensor, embeddings: Tensor, path: Path) -> Tensor:
    """Write images in every other row, and below each what the decoder makes of its embedding; return the picture.

    Args:
        decoder: in eval mode. It is left as it was.
        images: ``[n, c, h, w]`` in [-1, 1], of the decoder's size.
        embeddings: ``[n, d]``.
        path: of the picture.
    """
    return draw_pairs(images, sampled(decoder, images.shape, {"image_embedding": embeddings}), path)


def draw_upsampled(upsampler: Any, images: Tensor, size: int, path: Path) -> Tensor:
    """Write small images in every other row, and below each what the upsampler makes of it; return the picture.

    Args:
        upsampler: in eval mode. It is left as it was.
        images: ``[n, c, h, w]`` in [-1, 1].
        size: height and width of the large images.
        path: of the picture.
    """
    shape = (*images.shape[:2], size, size)
    large = sampled(upsampler, shape, {"low_resolution": images})
    return draw_pairs(F.interpolate(images, size=(size, size)), large, path)


@torch.no_grad()
def sampled(sampler: Any, shape: Sequence[int], conditions: dict[str, Tensor]) -> Tensor:
    """What a sampler makes of conditions in a few steps; image i is that of seed i."""
    device, generators = next(sampler.parameters()).device, seeded(range(shape[0]))
    noise = sampler.schedule.sample_prior(shape, generators, device=device)
    inputs = {name: value.to(device) for name, value in conditions.items()}
    with settings(sampler, eval_steps=PREVIEW_STEPS, progress_bar=False):
        images: Tensor = sampler(noise, conditional_inputs=inputs, generator=generators)
    return images.clamp(-1, 1).cpu()
