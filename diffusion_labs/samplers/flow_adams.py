"""Adams and Bashforth's method in the time of rectified flow."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.exponential import Point, lagrange
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel


class FlowAdamsSampler(MultistepSampler):
    """Adams and Bashforth's method for ``dw = (eps - x0) du`` (azula's vAB). One call a step, deterministic.

    With ``u = sigma / (alpha + sigma)`` and ``w = x_t / (alpha + sigma) = (1 - u) x0 + u eps``, every schedule is a
    rectified flow (arXiv 2209.03003), and its velocity is ``eps - x0``:
    ``w_s = w_t + (u_s - u_t) sum_j m_j (eps_j - x0_j)``, the exact integral of the polynomial in u through the last
    velocities. u is finite at both ends, so the last step, to clean data, is one like the others: where it is
    long, as on ``trailing``, that is closer than the estimate of clean data. The order is their number; but the first
    steps have fewer. Arguments as ``MultistepSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        points = (Point(t, eps - x0), *(past or ()))[: self.order]
        begin, length = flow_time(t), flow_time(s) - flow_time(t)
        nodes = [(flow_time(point.level) - begin) / length for point in points]
        weights = lagrange(nodes, [1 / (k + 1) for k in range(len(nodes))])

        w = (t.alpha * x0 + t.sigma * eps) / (t.alpha + t.sigma)
        w = w + length * sum((m * v for m, (_, v) in zip(weights, points, strict=True)), start=0.0)
        return (s.alpha + s.sigma) * w, points

    def last_step(self, xt: Tensor, t: NoiseLevel, past: Any, denoise: Denoise) -> Tensor:
        """The step to clean data."""
        clean = NoiseLevel(t.t, 1.0, 0.0, float("inf"))
        return self.step(xt, t, clean, past, denoise, lambda *_: xt)[0]


def flow_time(level: NoiseLevel) -> Any:
    """``u = sigma / (alpha + sigma)``."""
    return level.sigma / (level.alpha + level.sigma)
