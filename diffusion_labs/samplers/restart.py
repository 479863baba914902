"""Restart sampling."""

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Unpack, cast

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.heun import HeunSampler
from diffusion_labs.samplers.intermediate import level_of
from diffusion_labs.samplers.sampler import Denoise, Noise, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, transition
from diffusion_labs.schedules.schedule import Schedule


class Restart(NamedTuple):
    """An interval of sigma / alpha that is solved again, from new noise.

    Attributes:
        repetitions: how often (the paper's K).
        steps: steps of Heun's method from ``high`` down to ``low``.
        low: where noise is added: the first level of the grid that is not above it.
        high: up to where.
    """

    repetitions: int
    steps: int
    low: float
    high: float


class RestartSampler(HeunSampler):
    """Restart (arXiv 2306.14878, Alg. 1): Heun's steps, and intervals that are solved again. Stochastic.

    At s, the first level of the grid where ``sigma / alpha`` is not above an interval's ``low``, x_s is noised to u
    with ``sigma_u / alpha_u = high``, ``x_u = alpha_us x_s + sigma_us noise``, and ``HeunSampler`` goes back to s, in
    steps evenly spaced in ``(sigma / alpha)^(1/7)`` (EDM, arXiv 2206.00364, Eq. 5): each time, the noise makes the
    errors of all steps before smaller. Two calls a step, those of the intervals included. Second order in law, if the
    steps of the intervals become more in proportion. Without intervals it is ``HeunSampler``.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        restarts: the intervals, ``Restart(repetitions, steps, low, high)`` or tuples like it.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.

    Raises:
        ValueError: for an interval without steps, or whose ends are not ``0 < low < high``.

    Warns:
        UserWarning: for an interval below all levels of the grid, which is never solved again.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        restarts: Sequence[tuple[int, int, float, float]] = (Restart(2, 3, 0.06, 0.3),),
        **options: Unpack[SamplerOptions],
    ) -> None:
        super().__init__(model, schedule, predictor, **options)
        self.restarts = tuple(Restart(*one) for one in restarts)
        for one in self.restarts:
            if one.repetitions < 0 or one.steps < 1 or not 0 < one.low < one.high:
                raise ValueError(f"{one} must have repetitions >= 0, steps >= 1 and 0 < low < high")
        _, *levels = schedule.levels(self.times())
        least = min((level.sigma / level.alpha for level in levels), default=math.inf)
        for one in self.restarts:
            if least > one.low:
                warnings.warn(
                    f"no step of the grid goes to sigma / alpha <= {one.low:g}, but to {least:.3g} at least: {one} is "
                    "never solved again; take a grid with steps at less noise, such as karras, or an interval above",
                    stacklevel=2,
                )

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class.

        Raises:
            ValueError: on the way to more noise, as intervals are solved again in no other order.
        """
        if self.restarts and s.sigma * t.alpha > t.sigma * s.alpha:
            raise ValueError("RestartSampler draws noise, so it has no inverse; invert with HeunSampler")
        xs, past = super().step(xt, t, s, past, denoise, noise)
        for repetitions, steps, low, high in self.restarts:
            if s.sigma <= low * s.alpha and t.sigma > low * t.alpha:
                levels = self.between(high, s, steps)
                alpha, variance = cast(tuple[float, float], transition(s, levels[0]))
                for _ in range(repetitions):
                    xs = alpha * xs + variance**0.5 * noise()
                    for u, v in pairwise(levels):
                        xs, past = super().step(xs, u, v, past, denoise, noise)
        return xs, past

    def between(self, high: float, s: NoiseLevel, steps: int) -> list[NoiseLevel]:
        """The levels from ``sigma / alpha = high``, or the last time of the schedule, down to s."""
        top = level_of(self.schedule, -2 * math.log(high), s)
        ends = [(level.sigma / level.alpha) ** (1 / 7) for level in (top, s)]
        ratios = [ends[0] + (ends[1] - ends[0]) * i / steps for i in range(1, steps)]
        return [top, *(level_of(self.schedule, -14 * math.log(ratio), s) for ratio in ratios), s]
