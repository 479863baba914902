"""Timing of several candidates on a machine whose speed drifts: in turns, and compared within each turn."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Seconds = dict[str, list[float]]
"""The seconds of every candidate, one for each round."""


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], rounds: int, *, clock: Callable[[], float] = time.perf_counter
) -> Seconds:
    """Time each candidate once a round, after one call that is not timed; every other round in the opposite order."""
    for call in candidates.values():
        call()
    seconds: Seconds = {name: [] for name in candidates}
    for i in range(rounds):
        for name in list(candidates)[:: 1 if i % 2 == 0 else -1]:
            began = clock()
            candidates[name]()
            seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: Seconds, of: str, to: str) -> float:
    """The time of one candidate as a multiple of that of another: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(seconds[of], seconds[to], strict=True))


def fastest(seconds: Seconds, names: Sequence[str]) -> str:
    """The candidate with the smallest median."""
    return min(names, key=lambda name: statistics.median(seconds[name]))


def median(seconds: Seconds, name: str) -> float:
    """The median of a candidate, in seconds."""
    return statistics.median(seconds[name])


def spread(seconds: Seconds, of: str, to: str) -> str:
    """The quartiles of the ratio over the rounds, as text."""
    ratios = sorted(a / b for a, b in zip(seconds[of], seconds[to], strict=True))
    if len(ratios) < 2:
        return "-"
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{low:.2f} to {high:.2f}"
