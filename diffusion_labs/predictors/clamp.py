"""Bounds on estimates of the clean data."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class StaticClamp:
    """``x0`` clamped to the range of the data. For pixels, not for latents or embeddings."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(self.low, self.high)


@dataclass(frozen=True)
class DynamicThreshold:
    """Imagen's dynamic thresholding (arXiv 2205.11487, Sec. 2.3), for high guidance scales.

    Each sample is clamped to [-s, s] and divided by s, where s is the given quantile of its absolute
    values, at least ``bound`` and at most ``limit``; the result is in [-bound, bound].
    """

    quantile: float = 0.995
    bound: float = 1.0
    limit: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile ({self.quantile}) must be in (0, 1]")
        if not self.bound > 0:
            raise ValueError(f"bound ({self.bound}) must be positive")
        if not self.limit >= self.bound:
            raise ValueError(f"limit ({self.limit}) must be at least bound ({self.bound})")

    def __call__(self, x0: Tensor) -> Tensor:
        values = x0.flatten(1).abs().sort(dim=1).values  # torch.quantile refuses large or half inputs
        rank = self.quantile * (values.shape[1] - 1)
        below, above = values[:, math.floor(rank)], values[:, math.ceil(rank)]
        s = torch.lerp(below, above, rank - math.floor(rank)).clamp(self.bound, self.limit)
        s = s.reshape(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -s), s) * (self.bound / s)


@dataclass(frozen=True)
class FixedNorm:
    """``norm * x0 / |x0|``: each sample has the length of the data, where all data have the same.

    For embeddings of CLIP, whose length is 1 times the scale that diffusion gives them.
    """

    norm: float

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise ValueError(f"norm ({self.norm}) must be positive")

    def __call__(self, x0: Tensor) -> Tensor:
        return self.norm * F.normalize(x0.flatten(1), dim=1).view_as(x0)
