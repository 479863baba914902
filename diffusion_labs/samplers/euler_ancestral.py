"""Euler's method with fresh noise in each step."""

from typing import Unpack

from torch import nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.sampler import SamplerOptions
from diffusion_labs.schedules.schedule import Schedule


class EulerAncestralSampler(DDIMSampler):
    """Euler's step to less noise than s has, and fresh noise up to s (k-diffusion's Euler ancestral).

    In ``x / alpha``, from ``rho_t = sigma_t / alpha_t`` down to ``rho_s sqrt(1 - w)`` and up by
    ``rho_s sqrt(w)``, with ``w = eta^2 (1 - rho_s^2 / rho_t^2)``. That is DDIM with the same eta
    (arXiv 2010.02502, Eq. 16), and at eta = 1 ancestral sampling. First order in law, one call a step.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        eta: share of fresh noise, in [0, 1].
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        eta: float = 1.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        super().__init__(model, schedule, predictor, eta=eta, **options)
