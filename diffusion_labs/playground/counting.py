"""How much work a sampler is, before it works."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from diffusion_labs.models.ideal import IdealDenoiser
from diffusion_labs.predictors import TargetPredictor
from diffusion_labs.samplers import Sampler
from diffusion_labs.samplers.grids import Grid
from diffusion_labs.schedules import Schedule


class Enough(Exception):  # noqa: N818 (not an error)
    """More calls need not be counted."""


def calls(schedule: Schedule, sampler: Callable[..., Sampler], grid: Grid, steps: int, most: int) -> int:
    """Calls of the network for one sample, or ``most + 1`` if there are more: counted with one number for a picture.

    Those of a sampler that chooses its steps are near the number.

    Raises:
        ValueError: for steps that cannot be made.
    """
    schedule = copy.deepcopy(schedule).cpu()
    predictor = TargetPredictor(schedule)
    network = IdealDenoiser(predictor, torch.zeros(1, 1), 1.0)
    made = sampler(network, schedule, predictor, eval_steps=steps, grid=grid, progress_bar=False).eval()
    count = 0

    def called(module: nn.Module, arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise Enough

    network.register_forward_pre_hook(called)
    generator = torch.Generator().manual_seed(0)
    with suppress(Enough):
        made(schedule.sample_prior((1, 1), generator).double(), generator=generator)
    return count
