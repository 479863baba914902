"""RePaint: resampling in steps of DDPM."""

from itertools import pairwise
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.sampler import Denoise, Noise, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, transition
from diffusion_labs.schedules.schedule import Schedule


class RePaintSampler(DDPMSampler):
    """The resampling of RePaint (arXiv 2201.09865, Sec. 4.2): each step is made, noised back and made again.

    The way from t to s is ``jump_length`` steps of ``DDPMSampler``, evenly spaced in time. It is made ``resamplings``
    times, with ``x_t = alpha_ts x_s + sigma_ts noise`` before each repetition, so that what was painted can fit what
    ``KnownRegion`` knows. Stochastic, ``resamplings * jump_length`` calls a step. The paper's T = 250, j = 10, r = 10
    is what the defaults give, but for the last step, to clean data, which is made once.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        resamplings: how often each step is made; 1 is ``DDPMSampler``.
        jump_length: the number of DDPM's steps in each.
        variance_value: see ``DDPMSampler``.
        **options: ``eval_steps`` (25), ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        resamplings: int = 10,
        jump_length: int = 10,
        variance_value: float = 0.0,
        **options: Unpack[SamplerOptions],
    ) -> None:
        for name, value in (("resamplings", resamplings), ("jump_length", jump_length)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        options.setdefault("eval_steps", 25)
        super().__init__(model, schedule, predictor, variance_value=variance_value, **options)
        self.resamplings = resamplings
        self.jump_length = jump_length

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        alpha, variance = cast(tuple[float, float], transition(s, t))
        levels = [t, *self.between(t, s), s]

        xs = self.descend(xt, levels, denoise, noise)
        for _ in range(self.resamplings - 1):
            xt = alpha * xs + variance**0.5 * noise()
            xs = self.descend(xt, levels, denoise, lambda t, s: noise())  # not again the noise of the way from t to s
        return xs, past

    def descend(self, x: Tensor, levels: list[NoiseLevel], denoise: Denoise, noise: Noise) -> Tensor:
        """From the first of the levels to the last, in steps of DDPM."""
        for t, s in pairwise(levels):
            x, _ = super().step(x, t, s, None, denoise, noise)
        return x

    def between(self, t: NoiseLevel, s: NoiseLevel) -> list[NoiseLevel]:
        """The ``jump_length - 1`` levels between t and s."""
        share = torch.arange(1, self.jump_length, dtype=torch.float64, device="cpu") / self.jump_length
        return self.schedule.levels(torch.lerp(t.t.double(), s.t.double(), share.to(t.t.device)))
