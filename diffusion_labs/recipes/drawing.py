"""Pictures of what a trained model can do, whatever kind of model it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.images import image_grid, save_image
from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.variants import with_sampler
from diffusion_labs.samplers import Sampler
from diffusion_labs.samplers.grids import Grid

PREVIEW_STEPS = 20  # calls of the network for a picture during training


@contextmanager
def settings(part: Any, **values: Any) -> Iterator[None]:
    """Give attributes of a module other values for a while."""
    before = {name: getattr(part, name) for name in values}
    try:
        for name, value in values.items():
            setattr(part, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(part, name, value)


def guided_by(sampler: Any, guidance_scale: float) -> AbstractContextManager[None]:
    """Set the guidance scale of a sampler's model for a while."""
    guided = next((part for part in sampler.model.modules() if hasattr(part, "guidance_scale")), sampler.model)
    return settings(guided, guidance_scale=guidance_scale)


def draw(
    model: Any,
    sizes: ModelSizes,
    wanted: Tensor | Sequence[str],
    *,
    seed: int,
    guidance_scale: float = 1.0,
    steps: int | None = None,
    sampler: type[Sampler] | None = None,
    grid: Grid | None = None,
    known: Mapping[str, Tensor] | None = None,
    batch_size: int = 250,
    progress_bar: bool = False,
) -> Tensor:
    """Sample an image for each class or caption: image i is that of seed ``seed + i``, whatever the batch size.

    Args:
        model: what ``sizes.build`` returned, trained, in eval mode. It is left as it was.
        sizes: of the model.
        wanted: classes, ``[n]``, int64, or n captions; only their number counts if the model has no conditions.
        seed: of the first image.
        guidance_scale: see ``CFGuidance``.
        steps: calls of the network, or steps of samplers that make several; the sampler's own number if ``None``.
        sampler: another class of sampler than the model's own.
        grid: another grid of times.
        known: what is known of each image, for models that restore images.
        batch_size: images sampled at once.
        progress_bar: show the progress.

    Returns:
        ``[n, c, h, w]`` in [-1, 1].
    """
    if sampler is not None or grid is not None:
        model = with_sampler(model, sizes, sampler, grid)
    own: Any = sizes.sampler(model)
    device = next(model.parameters()).device
    images = []
    with (
        settings(own, eval_steps=steps or own.eval_steps, progress_bar=progress_bar),
        guided_by(own, guidance_scale),
    ):
        for first in range(0, len(wanted), batch_size):
            some = wanted[first : first + batch_size]
            some = some.to(device) if isinstance(some, Tensor) else some
            generators = seeded(range(seed + first, seed + first + len(some)))
            conditions: dict[str, Any] = dict.fromkeys(sizes.conditions, some)
            for name, value in (known or {}).items():
                conditions[name] = value[first : first + batch_size].to(device)
            images.append(sizes.sample(model, len(some), conditions, generators).clamp(-1, 1).cpu())
    return torch.cat(images)


def guide_prior(model: Any, guidance_scale: float | None) -> None:
    """Set the guidance scale of the prior of a model, and nothing if it is ``None``.

    Raises:
        ValueError: if the model has no prior.
    """
    if guidance_scale is None:
        return
    if not hasattr(model, "prior"):
        raise ValueError("this model has no prior; leave the guidance scale of the prior out")
    model.prior.sampler.model.guidance_scale = guidance_scale


def draw_classes(
    model: nn.Module,
    sizes: ModelSizes,
    path: Path,
    *,
    per_class: int = 8,
    guidance_scale: float = 2.0,
    steps: int | None = None,
) -> Tensor:
    """Write a picture with one row per class (ten rows at the most), and return it, uint8 ``[h, w, 3]``."""
    labels = torch.arange(max(1, min(len(sizes.class_names), 10))).repeat_interleave(per_class)
    images = draw(model, sizes, labels, seed=0, guidance_scale=guidance_scale, steps=steps)
    return save_grid(images, path, columns=per_class)


def save_grid(images: Tensor, path: Path, *, columns: int) -> Tensor:
    """Write images ``[n, c, h, w]`` in [-1, 1] side by side, small ones enlarged; return them, uint8 ``[h, w, 3]``."""
    picture = image_grid(images, columns=columns)
    save_image(path, picture, scale=max(1, 64 // images.shape[-1]))
    return picture


def draw_pairs(first: Tensor, second: Tensor, path: Path) -> Tensor:
    """Write images in every other row, and others below; return the picture."""
    pairs = zip(first.split(8), second.split(8), strict=True)
    return save_grid(torch.cat([row for pair in pairs for row in pair]), path, columns=8)
