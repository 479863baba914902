"""Integrals of an interpolated estimate over a step in log-SNR: what multi-step solvers share.

With ``l = log_snr / 2`` and ``h = l_s - l_t``, the probability flow from t to s is, exactly,
``x_s = (sigma_s / sigma_t) x_t + alpha_s int_0^1 h e^(-h (1 - u)) x0(l_t + u h) du`` and
``x_s = (alpha_s / alpha_t) x_t + sigma_s int_0^1 -h e^(h (1 - u)) eps(l_t + u h) du``
(DPM-Solver++, arXiv 2211.01095, Prop. 4.1; DPM-Solver, arXiv 2206.00927, Prop. 3.1). With the estimate held
constant both are the step of DDIM; the functions here add what a polynomial through several
estimates changes in it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum


class Point(NamedTuple):
    """An estimate (of x0 or of the noise) and the noise level at which it was made."""

    level: NoiseLevel
    value: Tensor


def step_size(t: NoiseLevel, s: NoiseLevel) -> Any:
    """``h``, half the difference of log-SNR; infinite from pure noise."""
    return (s.log_snr - t.log_snr) / 2


def first_order(xt: Tensor, x0: Tensor, t: NoiseLevel, s: NoiseLevel) -> Tensor:
    """``(sigma_s / sigma_t) x_t + alpha_s (1 - e^(-h)) x0``, for an x0 that need not be that of x_t."""
    return weighted_sum(s.sigma / t.sigma, xt, data_weight(t, s), x0)


def data_weight(t: NoiseLevel, s: NoiseLevel) -> Any:
    """``alpha_s (1 - e^(-h)) = alpha_s - alpha_t sigma_s / sigma_t``."""
    return s.alpha - t.alpha * s.sigma / t.sigma


def noise_weight(t: NoiseLevel, s: NoiseLevel) -> Any:
    """``sigma_s (1 - e^h) = sigma_s - alpha_s sigma_t / alpha_t``: that of a change of eps; not from pure noise."""
    return s.sigma - s.alpha * t.sigma / t.alpha


def bend(h: Any, t: NoiseLevel, s: NoiseLevel, now: Tensor, others: Sequence[Point]) -> Tensor | float:
    """``sum_j w_j (f_j - f_t)``: what the polynomial through all estimates adds to the constant f_t.

    The weights are ``w_j = int_0^1 h e^(-h (1 - u)) L_j(u) du`` with the Lagrange polynomials L_j of
    the nodes ``u_j = (log_snr_j - log_snr_t) / (log_snr_s - log_snr_t)``. An estimate made at pure
    noise is infinitely far away: its weight is 0, and the polynomial has a degree less; from pure noise
    (h infinite) the weight of an estimate at s is 1.

    Args:
        h: the step size for estimates of x0, minus it for estimates of the noise; of a stochastic solver, that of
            its kernel.
        t: where the step begins.
        s: where it ends.
        now: f_t.
        others: the estimates at other levels, before t or at s.
    """
    points = [point for point in others if math.isfinite(point.level.log_snr)]
    length: Any = s.log_snr - t.log_snr
    nodes: list[Any] = [0.0, *(1 + (point.level.log_snr - s.log_snr) / length for point in points)]
    weights = lagrange(nodes, [moment(h, k) for k in range(len(nodes))])
    return sum((w * (point.value - now) for w, point in zip(weights[1:], points, strict=True)), start=0.0)


def moment(h: float, k: int) -> float:
    """``int_0^1 h e^(-h (1 - u)) u^k du``, to the last digits at any h (no cancellation at small h)."""
    if abs(h) < 1:
        return h * math.exp(-h) * sum(h**j / (math.factorial(j) * (j + k + 1)) for j in range(20))
    return 1 - k / h * moment(h, k - 1) if k else -math.expm1(-h)


def lagrange(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Weights of the values at ``nodes`` in an integral whose values for ``u^k`` are ``moments``."""
    weights = []
    for node in nodes:
        polynomial = [1.0]  # coefficients of prod (u - other) / (node - other), the constant first
        for other in nodes:
            if other != node:
                shifted, scaled = [0.0, *polynomial], [*(other * c for c in polynomial), 0.0]
                polynomial = [(a - b) / (node - other) for a, b in zip(shifted, scaled, strict=True)]
        weights.append(sum(c * m for c, m in zip(polynomial, moments, strict=True)))
    return weights
