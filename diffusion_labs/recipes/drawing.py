"""Pictures of what a trained model can do, whatever kind of model it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffusion_labs.images import image_grid, save_image
from diffusion_labs.randomness import Generators, seeded
from diffusion_labs.samplers import Sampler

PREVIEW_STEPS = 20  # calls of the network for a picture during training


@runtime_checkable
class ModelSizes(Protocol):
    """Plain data from which a model is built, and how to draw from it."""

    @property
    def image_shape(self) -> Sequence[int]:
        """``(channels, height, width)``."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes; empty if there are none."""

    @property
    def conditions(self) -> Sequence[str]:
        """The conditional input that says what to draw, "class" or "caption"; none if there is none."""

    @property
    def known(self) -> Mapping[str, int]:
        """What is known of the image to draw, by the names of the inputs: how many channels each has."""

    def build(self) -> nn.Module:
        """The model with random weights."""

    def sampler(self, model: Any) -> Sampler:
        """The sampler of the model, around a ``CFGuidance``."""

    def prior(self, model: Any, count: int, generators: Generators) -> Tensor:
        """Noise to begin with, for images of ``image_shape``."""


def draw(
    model: Any,
    sizes: ModelSizes,
    wanted: Tensor | Sequence[str],
    *,
    seed: int,
    guidance_scale: float = 1.0,
    steps: int | None = None,
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
        steps: calls of the network; the sampler's own number if ``None``.
        known: what is known of each image, for models that restore images.
        batch_size: images sampled at once.
        progress_bar: show the progress.

    Returns:
        ``[n, c, h, w]`` in [-1, 1].
    """
    sampler: Any = sizes.sampler(model)
    before = sampler.eval_steps, sampler.progress_bar, sampler.model.guidance_scale
    sampler.eval_steps, sampler.progress_bar = steps or sampler.eval_steps, progress_bar
    sampler.model.guidance_scale = guidance_scale
    device = next(model.parameters()).device
    images = []
    try:
        for first in range(0, len(wanted), batch_size):
            some = wanted[first : first + batch_size]
            some = some.to(device) if isinstance(some, Tensor) else some
            generators = seeded(range(seed + first, seed + first + len(some)))
            noise = sizes.prior(model, len(some), generators)
            conditions: dict[str, Any] = dict.fromkeys(sizes.conditions, some)
            for name, value in (known or {}).items():
                conditions[name] = value[first : first + batch_size].to(device)
            images.append(model(noise, conditional_inputs=conditions, generator=generators).clamp(-1, 1).cpu())
    finally:
        sampler.eval_steps, sampler.progress_bar, sampler.model.guidance_scale = before
    return torch.cat(images)


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
