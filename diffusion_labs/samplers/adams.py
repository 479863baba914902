"""Adams' methods for the probability flow."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.polynomial.legendre import leggauss
from torch import Tensor

from diffusion_labs.samplers.exponential import Point, lagrange
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.probability_flow import amplitude, velocity
from diffusion_labs.samplers.sampler import Denoise, Noise
from diffusion_labs.schedules.noise_level import NoiseLevel

QUADRATURE = [
    (float(place + 1) / 2, float(weight) / 2) for place, weight in zip(*leggauss(16), strict=True)
]  # of [0, 1]


class Past(NamedTuple):
    """The corrected z where the last step began, and the velocities there and before."""

    z: Tensor
    points: tuple[Point, ...]


class AdamsSampler(MultistepSampler):
    """Adams' predictor and corrector in the angle of the noise level. Order p + 1, one call a step, deterministic.

    ``z_s = z_t + int v dphi`` (``probability_flow``) with the polynomial through the last p velocities in ``log u``,
    ``u = sigma / (alpha + sigma)``, the time of rectified flow. When the velocity at s is known, z_s is
    corrected with the polynomial that goes through it too, as UniPC does (arXiv 2302.04867), for no further call.

    v is bounded on every schedule, and log u even in log-SNR at little noise and finite at pure noise: nothing
    is extrapolated over infinite distances, which lets it be accurate with few calls and with many
    (docs/solvers.md). The first steps have fewer velocities, so p = 3 and more fall at order 3 unless they
    are short. Arguments as ``MultistepSampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        new = Point(t, velocity(x0, eps, t))
        z = (t.alpha * x0 + t.sigma * eps) / amplitude(t)
        points: tuple[Point, ...] = ()
        if past is not None:
            z = z + advance(past.z, past.points[0].level, t, [new, *past.points]) - xt / amplitude(t)
            points = past.points

        points = (new, *points)[: self.order]
        return amplitude(s) * advance(z, t, s, points), Past(z, points)


def advance(z: Tensor, t: NoiseLevel, s: NoiseLevel, points: Sequence[Point]) -> Tensor:
    """From z_t to z_s with the polynomial through the velocities at some points."""
    begin, end = angle(t), angle(s)
    length = log_u(end) - log_u(begin)
    angles = [begin + place * (end - begin) for place, _ in QUADRATURE]
    places = [(log_u(phi) - log_u(begin)) / length for phi in angles]
    moments = [
        (end - begin) * sum(weight * u**k for (_, weight), u in zip(QUADRATURE, places, strict=True))
        for k in range(len(points))
    ]
    nodes = [(log_u(angle(point.level)) - log_u(begin)) / length for point in points]
    terms = (w * point.value for w, point in zip(lagrange(nodes, moments), points, strict=True))
    return sum(terms, start=z)


def angle(level: NoiseLevel) -> float:
    """``phi`` of a level of the sampling loop, whose coefficients are numbers."""
    return math.atan2(level.sigma, level.alpha)


def log_u(phi: float) -> float:
    """``log(sigma / (alpha + sigma))``."""
    return math.log(math.sin(phi) / (math.sin(phi) + math.cos(phi)))
