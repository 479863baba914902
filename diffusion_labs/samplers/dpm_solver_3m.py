"""DPM-Solver (3M)."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, moment, noise_weight, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class DPMSolver3MSampler(Sampler):
    """DPM-Solver 3M as its authors wrote it (diffusers' "dpmsolver", order 3). One call a step, deterministic.

    ``x_s = alpha_s x0 + sigma_s eps + sigma_s (m_1 D1 + m_2 D2 / 2)``, where ``eps + u D1 + u^2 D2`` is the parabola in
    log-SNR through the last three estimates of the noise, u = 0 at t and 1 at s, and
    ``m_k = int_0^1 -h e^(h (1 - u)) u^k du`` (``exponential``). The integral of the parabola has m_2 D2, and is
    ``DEISSampler(order=3)``. With half of it the order is 2; with some ten calls, where a parabola overshoots, it can
    be the more accurate (docs/solvers.md). The second step is that of ``DPMSolver2MSampler``. Arguments as
    ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        past = past or ()
        x0, eps, _ = denoise(xt, t)
        xs = weighted_sum(s.alpha, x0, s.sigma, eps)
        h = step_size(t, s)
        if past:
            r = step_size(past[0].level, t) / h
            slope = (eps - past[0].value) / r  # D1 of the line through two estimates
        if len(past) == 1:
            xs = xs + noise_weight(t, s) * slope / 2
        if len(past) == 2:
            r_last = step_size(past[1].level, past[0].level) / h
            d2 = (slope - (past[0].value - past[1].value) / r_last) / (r + r_last)
            xs = xs + s.sigma * (moment(-h, 1) * (slope + r * d2) + moment(-h, 2) * d2 / 2)
        return xs, (Point(t, eps), *past)[:2]
