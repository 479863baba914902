"""How sure a figure is."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_labs.samplers.beta_grid import beta_quantile


class Interval(NamedTuple):
    """A figure, and between what its true value is thought to be: what it would be on average over such data.

    Where that depends on how much data there is, as a Frechet distance does, the interval is around the value for so
    much of it, and not around that for all data in the world; see ``bias_corrected``.

    Attributes:
        value: of all data.
        low: end of the interval.
        high: end of the interval.
    """

    value: float
    low: float
    high: float

    def within(self, low: float = -math.inf, high: float = math.inf) -> "Interval":
        """The part of it at which the figure can be, with the same value."""
        return self._replace(low=min(max(self.low, low), high), high=max(min(self.high, high), low))


def share_interval(share: float, count: int, level: float = 0.95) -> Interval:
    """A share of independent samples, with Wilson's interval, which is not empty where none or all of them are.

    ``(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)`` (Wilson, "Probable inference, the law of
    succession, and statistical inference", 1927).

    Args:
        share: p, in [0, 1].
        count: n.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: for another share, count or level.
    """
    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"share ({share}) must be in [0, 1], and count ({count}) at least 1")
    _check_level(level)
    square = _normal_quantile(level) ** 2 / count
    middle, reach = share + square / 2, math.sqrt(square * (share * (1 - share) + square / 4))
    return Interval(share, (middle - reach) / (1 + square), (middle + reach) / (1 + square)).within(0.0, 1.0)


def mean_interval(values: Tensor, level: float = 0.95) -> Interval:
    """The mean of independent values, with the interval ``mean -+ t s / sqrt(n)``, t of Student's distribution.

    It is that of the jackknife with a group for each value.

    Args:
        values: ``[n]``, at least two.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: for fewer values, or another level.
    """
    if len(values) < 2:
        raise ValueError(f"values ({len(values)}) must be at least 2 for an interval")
    values = values.double()
    mean, error = values.mean().item(), values.std().item() / len(values) ** 0.5
    reach = student_quantile(level, len(values) - 1) * error
    return Interval(mean, mean - reach, mean + reach)


def jackknife(
    measure: Callable[..., float],
    *data: Sequence[Tensor] | Tensor,
    level: float = 0.95,
    groups: int = 10,
    generator: torch.Generator | None = None,
) -> Interval:
    """The value of a measure of one or several sets, with a confidence interval by the grouped jackknife.

    Each set is cut at random into g groups, and the measure is taken without each group in turn: with s the standard
    deviation of these values, the standard error is ``(g - 1) / sqrt(g) * s`` (Efron, "The Jackknife, the Bootstrap and
    Other Resampling Plans", 1982, chapter 3), and the interval is that of Student's distribution with g - 1 degrees of
    freedom. Sets are cut independently and the variances add up. A bootstrap, which draws vectors twice, would bias
    distances between distributions and nearest neighbours; here no vector is twice.

    The interval is around the value that the measure has on average for so much data. A measure that is biased, as
    ``frechet_distance`` is, has another for all data: give ``bias_corrected(measure)`` for that. One that cannot be
    below 0 has ``jackknife(...).within(0)``.

    Args:
        measure: called with as many tensors as there are sets, each with some rows left out.
        *data: the sets: a tensor ``[n, ...]``, or several with the same number of rows, which are cut alike and given
            as a tuple.
        level: of confidence, in (0, 1).
        groups: g, at least 2 and at most the number of rows.
        generator: of the groups.

    Raises:
        ValueError: if the level is not in (0, 1), or a set has fewer rows than there are groups.
    """
    return jackknife_all(lambda *sets: [measure(*sets)], *data, level=level, groups=groups, generator=generator)[0]


def jackknife_all(
    measure: Callable[..., Sequence[float]],
    *data: Sequence[Tensor] | Tensor,
    level: float = 0.95,
    groups: int = 10,
    generator: torch.Generator | None = None,
) -> list[Interval]:
    """``jackknife`` of several figures that are measured together."""
    _check_level(level)
    sets = [(part,) if isinstance(part, Tensor) else tuple(part) for part in data]
    fewest = min(len(part[0]) for part in sets)
    if not 2 <= groups <= fewest:
        raise ValueError(f"groups ({groups}) must be at least 2 and at most the {fewest} rows of the smallest set")
    deviations = student_quantile(level, groups - 1)

    def taken(parts: Sequence[tuple[Tensor, ...]]) -> Tensor:
        values = measure(*(part[0] if len(part) == 1 else part for part in parts))
        return torch.tensor(list(values), dtype=torch.float64)

    value = taken(sets)
    variance = torch.zeros_like(value)
    for i, part in enumerate(sets):
        order = torch.randperm(len(part[0]), generator=generator)
        without = []
        for left_out in order.tensor_split(groups):
            kept = torch.ones(len(order), dtype=torch.bool).index_fill_(0, left_out, False)
            without.append(taken([*sets[:i], tuple(column[kept] for column in part), *sets[i + 1 :]]))
        variance += (groups - 1) ** 2 / groups * torch.stack(without).var(0)
    reach = deviations * variance.sqrt()
    return [Interval(*row) for row in torch.stack([value, value - reach, value + reach], 1).tolist()]


def bias_corrected(measure: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], float]:
    """A measure of two sets without its bias, as far as that falls as one over the number of rows.

    With half of the rows the bias is twice as large, so ``2 m(a, b) - (m(a', b') + m(a'', b'')) / 2`` has none, where
    a' and a'' are every second row: the line in 1 / n of "Effectively Unbiased FID and Inception Score" (arXiv
    1911.07023, section 4), through two points. It may be below 0, also for a distance.

    Args:
        measure: such as ``frechet_distance``, which needs halves of more rows than there are features.

    Example:
        >>> from diffusion_labs.metrics import frechet_distance
        >>> a, b = torch.randn(2, 400, 32, generator=torch.Generator().manual_seed(0))
        >>> [round(measure(a, b), 1) for measure in (frechet_distance, bias_corrected(frechet_distance))]
        [1.3, -0.2]
    """

    def corrected(a: Tensor, b: Tensor) -> float:
        return 2 * measure(a, b) - (measure(a[::2], b[::2]) + measure(a[1::2], b[1::2])) / 2

    return corrected


@cache
def student_quantile(level: float, freedom: int) -> float:
    """How many standard errors reach to either side: t with ``P(|T| < t) = level``, of Student's distribution.

    ``T^2 / (freedom + T^2)`` has the distribution Beta(1/2, freedom / 2). For many degrees of freedom it is the
    expansion about the normal distribution's z (Abramowitz and Stegun, 26.7.5).
    """
    _check_level(level)
    if freedom <= 100:
        share = beta_quantile(torch.tensor([level], dtype=torch.float64), 0.5, freedom / 2).item()
        return math.sqrt(freedom * share / (1 - share))
    z = _normal_quantile(level)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level ({level}) must be in (0, 1)")


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
