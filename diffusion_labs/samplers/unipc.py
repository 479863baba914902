"""UniPC."""

from typing import Any, NamedTuple

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, bend, data_weight, first_order, step_size
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class Past(NamedTuple):
    """The corrected x where the last step began, and the estimates of x0 there and before."""

    xt: Tensor
    points: tuple[Point, ...]


class UniPCSampler(MultistepSampler):
    """UniPC (arXiv 2302.04867, data prediction with B_2). Order p + 1, one call a step, deterministic.

    Each estimate of x0 is used twice: to correct x_t, which was predicted without it, and to predict
    x_s. Both integrate the polynomial in log-SNR through the estimates (``exponential``),
    ``x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^(-h)) x0 + alpha_s sum_j w_j (x0_j - x0)``: the
    predictor (UniP) through the last p, the corrector (UniC) through those and the new one. As in the paper,
    where there is but one other estimate, at u, B_2 replaces the weight by
    ``alpha_s (1 - e^(-h)) / (2 u)``, u in units of the step.

    The first steps have fewer estimates, so p above 2 falls at order 3 unless they are short or near pure noise: for
    p = 3 and 4, one call more in the first step is enough. p above 3 is more accurate at steps in log-SNR
    below about 0.4, and less at larger ones. The step to the last noise level, which no corrector follows, has one
    estimate less (``lower_order_final`` in the authors' code) and order p. Arguments as ``MultistepSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        return self._step(xt, t, s, past, denoise, self.order)

    def step_to_last(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """As ``step``, but no corrector follows: one estimate less, down to 2, overshoots less."""
        return self._step(xt, t, s, past, denoise, max(self.order - 1, min(self.order, 2)))

    def _step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, order: int
    ) -> tuple[Tensor, Any]:
        x0, eps, _ = denoise(xt, t)
        new = Point(t, x0)
        points: tuple[Point, ...] = ()
        corrected = weighted_sum(t.alpha, x0, t.sigma, eps)
        if past is not None:
            last, *before = past.points
            corrected = corrected + update(past.xt, last, t, [*before, new]) - xt
            points = past.points

        points = (new, *points)[: self.order]
        return update(corrected, new, s, points[1:order]), Past(corrected, points)


def update(xt: Tensor, now: Point, s: NoiseLevel, others: Any) -> Tensor:
    """From x_t to x_s with the estimate made at t and others: the predictor and the corrector."""
    t, x0 = now
    xs = first_order(xt, x0, t, s)
    if len(others) == 1:
        (other,) = others
        # 1 / u; at s it is 1 also from pure noise, where the sizes are infinite
        inverse = 1.0 if other.level is s else step_size(t, s) / step_size(t, other.level)
        return weighted_sum(1.0, xs, data_weight(t, s) * inverse / 2, other.value - x0)
    return xs + s.alpha * bend(step_size(t, s), t, s, x0, others)
