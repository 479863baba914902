"""Times at the quantiles of a Beta distribution."""

import math

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import Schedule

TERMS = 100  # of the series, for a + b near 1: the last is below 2^-100
HALVINGS = 60


def beta(schedule: Schedule, steps: int, a: float = 0.6, b: float = 0.6) -> Tensor:
    """Times at even quantiles of Beta(a, b), from the last to the first (Beta sampling, arXiv 2407.12173).

    a and b below 1 put more steps at both ends, at fractional times; a = b = 1 is even in time.

    Raises:
        ValueError: if a or b is not in (0, 100].
    """
    if not (0 < a <= 100 and 0 < b <= 100):
        raise ValueError(f"a ({a}) and b ({b}) must be in (0, 100]")
    if steps == 1:
        return torch.tensor([schedule.terminal], dtype=torch.float64, device="cpu")
    first, terminal = torch.tensor([schedule.first, schedule.terminal], dtype=torch.float64, device="cpu")
    even = torch.linspace(1, 0, steps, dtype=torch.float64, device="cpu")
    return torch.lerp(first, terminal, beta_quantile(even, a, b))


def beta_quantile(p: Tensor, a: float, b: float) -> Tensor:
    """x with ``I_x(a, b) = p``, where I is the regularised incomplete beta function; float64.

    By bisection on [0, 1/2], from the side on which x lies: ``I_x(a, b) = 1 - I_{1 - x}(b, a)``.
    """
    middle = _incomplete_beta(torch.full_like(p[:1], 0.5), a, b).clamp(max=1)  # not a rounding error above it
    below = _bisect(torch.minimum(p, middle), a, b)
    above = 1 - _bisect(torch.minimum(1 - p, 1 - middle), b, a)
    return torch.where((p < middle) | (p == 0), below, above)


def _bisect(p: Tensor, a: float, b: float) -> Tensor:
    low, high = torch.zeros_like(p), torch.full_like(p, 0.5)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        under = _incomplete_beta(middle, a, b) < p
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return torch.where(p > 0, high, 0.0)


def _incomplete_beta(x: Tensor, a: float, b: float) -> Tensor:
    """``I_x = x^a (1 - x)^b / (a B(a, b)) * sum_n (a + b)_n / (a + 1)_n x^n`` (DLMF 8.17.8), for x <= 1/2."""
    n = torch.arange(TERMS + round(5 * (a + b)), dtype=torch.float64, device="cpu")
    coefficients = torch.cat([n.new_ones(1), ((a + b + n) / (a + 1 + n))[:-1].cumprod(0)])
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    series = (x[:, None] ** n) @ coefficients
    return torch.exp(a * x.log() + b * torch.log1p(-x) - log_beta) / a * series
