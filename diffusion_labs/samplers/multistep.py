"""Solvers that use their last estimates again."""

from typing import Unpack

from torch import nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.sampler import Sampler, SamplerOptions
from diffusion_labs.schedules.schedule import Schedule


class MultistepSampler(Sampler):
    """Base class of solvers through the last ``order`` estimates; the first steps have fewer.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        order: number of estimates, at least 1. 2 is safe; 3 is more accurate where steps are many or guidance weak.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        order: int = 2,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if order < 1:
            raise ValueError(f"order ({order}) must be at least 1")
        super().__init__(model, schedule, predictor, **options)
        self.order = order
