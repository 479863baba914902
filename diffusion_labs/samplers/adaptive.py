"""The probability flow, solved to a given accuracy."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.dormand_prince import integrate
from diffusion_labs.samplers.grids import linspace
from diffusion_labs.samplers.probability_flow import amplitude, angle, level_at, velocity
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel
from diffusion_labs.schedules.schedule import Schedule


class AdaptiveSampler(Sampler):
    """The probability flow by a fifth-order Runge-Kutta pair with error control. Six calls a step, deterministic.

    The black-box solver of Score SDE (arXiv 2011.13456, Sec. 4.3) for
    ``dz / dphi = cos(phi) eps - sin(phi) x0`` in the angle of the noise level (``probability_flow``), which is
    smooth from pure noise to clean data on every schedule, with steps that each sample chooses for itself
    (``dormand_prince``). The grid only says which points ``generator()`` yields; the network is called at times
    between them.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in units of the data.
        **options: ``eval_steps`` (2, the two ends), ``grid`` (``linspace``), ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        rtol: float = 1e-3,
        atol: float = 1e-3,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
            raise ValueError(f"rtol ({rtol}) and atol ({atol}) must not be negative, nor both 0")
        options.setdefault("eval_steps", 2)
        options.setdefault("grid", linspace)
        super().__init__(model, schedule, predictor, **options)
        self.rtol = rtol
        self.atol = atol

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        return self.solution(xt, t, s, denoise), past

    def last_step(self, xt: Tensor, t: NoiseLevel, past: Any, denoise: Denoise) -> Tensor:
        """By the schedule's first time, wherever the grid ends."""
        (first,) = self.schedule.levels(torch.full_like(t.t, self.schedule.first)[None])
        if t.sigma * first.alpha > first.sigma * t.alpha:
            xt, t = self.solution(xt, t, first, denoise), first
        return super().last_step(xt, t, past, denoise)

    def solution(self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, denoise: Denoise) -> Tensor:
        """The flow from x_t to x_s."""

        def slope(z: Tensor, phi: Tensor) -> Tensor:
            level = level_at(self.schedule, phi, z)
            x0, eps, _ = denoise((amplitude(level) * z).to(z.dtype), level)
            return velocity(x0, eps, level).to(z.dtype)

        ends = (self.schedule.on(xt.device, angle(level)) for level in (t, s))
        return amplitude(s) * integrate(slope, xt / amplitude(t), *ends, rtol=self.rtol, atol=self.atol)
