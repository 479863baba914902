"""Euler's method for the probability flow."""

from typing import Unpack

from torch import nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.sampler import SamplerOptions
from diffusion_labs.schedules.schedule import Schedule


class EulerSampler(DDIMSampler):
    """Euler's method (EDM, arXiv 2206.00364, Alg. 1 without Heun's correction). First order, one call a step.

    ``x_s / alpha_s = x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) eps``: the probability
    flow ``d(x / alpha) = eps d(sigma / alpha)`` with eps held constant. That is DDIM at eta = 0
    (arXiv 2010.02502, Sec. 4.3), ``x_s = alpha_s x0 + sigma_s eps``, which is finite at alpha_t = 0 too.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self, model: nn.Module, schedule: Schedule, predictor: Predictor, **options: Unpack[SamplerOptions]
    ) -> None:
        super().__init__(model, schedule, predictor, eta=0.0, **options)
