"""How sure a figure is."""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A figure, and between what its true value is thought to be.

    Attributes:
        value: of all data.
        low: end of the interval.
        high: end of the interval.
    """

    value: float
    low: float
    high: float


def mean_interval(values: Tensor, level: float = 0.95) -> Interval:
    """The mean of independent values, with the interval ``mean -+ z s / sqrt(n)``.

    It is that of the jackknife with a group for each value.

    Args:
        values: ``[n]``, at least two.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: for fewer values, or another level.
    """
    deviations = _deviations(level)
    if len(values) < 2:
        raise ValueError(f"values ({len(values)}) must be at least 2 for an interval")
    values = values.double()
    mean, error = values.mean().item(), values.std().item() / len(values) ** 0.5
    reach = deviations * error
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
    Other Resampling Plans", 1982, chapter 3), and the interval is the normal distribution's. Sets are cut independently
    and the variances add up. A bootstrap, which draws vectors twice, would bias distances between distributions and
    nearest neighbours; here no vector is twice.

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
    deviations = _deviations(level)
    sets = [(part,) if isinstance(part, Tensor) else tuple(part) for part in data]
    fewest = min(len(part[0]) for part in sets)
    if not 2 <= groups <= fewest:
        raise ValueError(f"groups ({groups}) must be at least 2 and at most the {fewest} rows of the smallest set")

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


def _deviations(level: float) -> float:
    """How many standard deviations of a normal distribution an interval reaches to either side."""
    if not 0 < level < 1:
        raise ValueError(f"level ({level}) must be in (0, 1)")
    return NormalDist().inv_cdf((1 + level) / 2)
