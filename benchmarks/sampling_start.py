"""What the samples of a trained model begin with."""

from typing import Any

import torch
from torch import Tensor

from diffusion_labs.randomness import seeded


def sampling_start(model: Any, sizes: Any, count: int, *, first_seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise, of pixels or latents, and the classes in turn, as the network takes them.

    Args:
        model: of a run, with classes.
        sizes: of the model.
        count: samples.
        first_seed: of the noise of the first; the others follow.
    """
    seeds = seeded(range(first_seed, first_seed + count))
    classes = {"class": torch.arange(count) % len(sizes.class_names)}
    if not hasattr(model, "condition"):
        return sizes.sampler(model).schedule.sample_prior((count, *sizes.image_shape), seeds), classes
    noise = model.sample_prior(count, sizes.image_shape[1:], seeds)  # of latents, whose classes are encoded
    with torch.no_grad():
        return noise, model.condition(classes, noise)
