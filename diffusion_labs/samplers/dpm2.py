"""DPM-Solver-2."""

from typing import Unpack

from torch import nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.dpm2_ancestral import DPM2AncestralSampler
from diffusion_labs.samplers.sampler import SamplerOptions
from diffusion_labs.schedules.schedule import Schedule


class DPM2Sampler(DPM2AncestralSampler):
    """DPM-Solver-2 (arXiv 2206.00927, Alg. 1; k-diffusion's DPM2). Second order, two calls a step, deterministic.

    With u halfway between t and s in log-SNR: ``x_u = alpha_u x0 + sigma_u eps`` and
    ``x_s = alpha_s x0 + sigma_s eps + (sigma_s - alpha_s sigma_t / alpha_t) (eps_u - eps)``: the
    midpoint rule for ``d(x / alpha) = eps d(sigma / alpha)``, and ``DPM2AncestralSampler`` at eta = 0. From
    pure noise, where the middle is pure noise too, eps_u is eps, and the step that of DDIM.

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
