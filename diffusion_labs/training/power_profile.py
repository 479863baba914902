"""Power-function averages: how much the weights of each time count, and any of them as a sum of others.

Of EDM2, https://arxiv.org/abs/2312.02696: section 3 and appendix C.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor


class PowerProfile(NamedTuple):
    """How much the weights of time tau count in an average: ``p(tau) = (gamma + 1) tau^gamma / step^(gamma + 1)``.

    Attributes:
        step: when the average was taken; ``0 <= tau <= step``.
        sigma_rel: the standard deviation of tau, divided by ``step``.
    """

    step: float
    sigma_rel: float


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile of a width.

    ``sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^(-1) (gamma + 3)^(-1/2)``. With ``u = gamma + 2`` and
    ``s = sigma_rel^(-2)`` that is ``u^3 + u^2 - s u + s = 0``, whose largest root, one of three real ones, is Viete's.

    Raises:
        ValueError: if there is no gamma of at least 0, where all weights count the same.
    """
    if not 0 < sigma_rel <= 12**-0.5:
        raise ValueError(
            f"sigma_rel ({sigma_rel}) must be in (0, {12**-0.5:.4f}], where the latter is the mean of all weights"
        )
    s = sigma_rel**-2
    p, q = -s - 1 / 3, 4 * s / 3 + 2 / 27  # of u + 1/3: v^3 + p v + q = 0
    v = 2 * math.sqrt(-p / 3) * math.cos(math.acos(3 * q / (2 * p) * math.sqrt(-3 / p)) / 3)
    return max(0.0, v - 1 / 3 - 2)


def inner_products(some: Sequence[PowerProfile], others: Sequence[PowerProfile]) -> Float64[Tensor, "some others"]:
    """The integral of the product of each of some profiles with each of others (Eq. 151).

    ``(gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1) * (early / late)^gamma / late``, where ``early`` and
    ``late`` are the two steps, and ``gamma`` is that of the later profile.
    """
    step_a, gamma_a = (column[:, None] for column in _columns(some))
    step_b, gamma_b = _columns(others)
    early, late = torch.minimum(step_a, step_b), torch.maximum(step_a, step_b)
    gamma = torch.where(step_a > step_b, gamma_a, gamma_b)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * (early / late) ** gamma / late


def combination(profiles: Sequence[PowerProfile], wanted: PowerProfile) -> tuple[list[float], float]:
    """The sum of profiles that is nearest to another one: ``min |sum_i x_i p_i - p|`` where ``sum_i x_i = 1``.

    So weights that never change are kept; of Algorithm 3 it is the constrained form. With the Gram matrix ``A`` of the
    profiles, their products ``b`` with the wanted one, and a multiplier m: ``[[A, 1], [1, 0]] [x, m] = [b, 1]``.

    Returns:
        ``x``, and the distance ``|sum_i x_i p_i - p| / |p|`` that is left.
    """
    scaled = [profile._replace(step=profile.step / wanted.step) for profile in profiles]  # the products are about 1
    target = [wanted._replace(step=1)]
    gram, products, square = (inner_products(*pair) for pair in ((scaled, scaled), (scaled, target), (target, target)))
    ones = torch.ones_like(products)
    matrix = torch.cat([torch.cat([gram, ones], 1), torch.cat([ones, torch.zeros_like(square)]).mT])
    x = torch.linalg.solve(matrix, torch.cat([products, torch.ones_like(square)]))[:-1]
    left = x.mT @ gram @ x - 2 * x.mT @ products + square
    return x[:, 0].tolist(), (left / square).clamp(min=0).sqrt().item()


def _columns(profiles: Sequence[PowerProfile]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """The steps and the exponents."""
    steps = torch.tensor([profile.step for profile in profiles], dtype=torch.float64)
    return steps, torch.tensor([gamma_of(profile.sigma_rel) for profile in profiles], dtype=torch.float64)
