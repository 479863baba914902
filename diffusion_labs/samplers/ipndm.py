"""Improved pseudo linear multi-step method."""

from typing import Any, Unpack

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.exponential import lagrange, noise_weight
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.sampler import Denoise, Noise, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum
from diffusion_labs.schedules.schedule import Schedule


class IPNDMSampler(MultistepSampler):
    """iPNDM (DEIS, arXiv 2204.13902; diffusers' IPNDM). Second order, one call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + (sigma_s - alpha_s sigma_t / alpha_t) sum_j w_j (eps_j - eps)``: the step of DDIM
    with the Adams-Bashforth mean of the last estimates of the noise, ``(3, -1) / 2``, ``(23, -16, 5) / 12``,
    ``(55, -59, 37, -9) / 24``; the first steps have fewer. These are the weights of equal steps in sigma / alpha, where
    it is ``LMSSampler``, and the order their number. On other grids, as on PNDM's equal steps in time, the order is 2
    with any number from 2 on; 3 and 4 make the error smaller than 2. ``LMSSampler`` and ``DEISSampler`` have
    the weights of the grid's own steps.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        order: number of estimates, at least 1.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        order: int = 4,
        **options: Unpack[SamplerOptions],
    ) -> None:
        super().__init__(model, schedule, predictor, order=order, **options)

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        past = past or ()
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps)
        if past:
            count = len(past) + 1
            weights = lagrange([-float(j) for j in range(count)], [1 / (k + 1) for k in range(count)])
            bend = sum((w * (value - eps) for w, value in zip(weights[1:], past, strict=True)), start=0.0)
            xs = xs + noise_weight(t, s) * bend
        return xs, (eps, *past)[: self.order - 1]
