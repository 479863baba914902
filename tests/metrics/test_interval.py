"""Intervals hold the truth as often as they say, and are exact for a mean."""

import math

import pytest
import torch

from diffusion_labs.metrics import (
    Interval,
    bias_corrected,
    frechet_distance,
    jackknife,
    kernel_distance,
    mean_interval,
    share_interval,
)
from diffusion_labs.metrics.interval import student_quantile


def test_a_group_for_each_row_is_the_standard_error_of_a_mean():
    x = torch.randn(40, dtype=torch.float64)
    found = jackknife(lambda x: x.mean().item(), x, groups=40)
    reach = 2.022691 * x.std().item() / math.sqrt(40)
    assert found == pytest.approx((x.mean().item(), x.mean().item() - reach, x.mean().item() + reach), rel=1e-6)
    assert mean_interval(x) == pytest.approx(found, rel=1e-6)
    narrow = mean_interval(x, level=0.5)
    assert narrow == pytest.approx(jackknife(lambda x: x.mean().item(), x, groups=40, level=0.5), rel=1e-6)


@pytest.mark.parametrize(("count", "level", "message"), [(1, 0.95, "at least 2"), (3, 0.0, "level")])
def test_a_mean_without_an_interval_is_refused(count: int, level: float, message: str):
    with pytest.raises(ValueError, match=message):
        mean_interval(torch.zeros(count), level)


def test_two_sets_add_their_variances_and_columns_stay_together():
    a, b = torch.randn(30, dtype=torch.float64), torch.randn(20, dtype=torch.float64)

    def difference(first, pair):
        b, twice = pair
        assert torch.equal(2 * b, twice)
        return (first.mean() - b.mean()).item()

    found = jackknife(difference, a, (b, 2 * b), groups=20)
    one, two = jackknife(lambda x: x.mean().item(), a, groups=20), jackknife(lambda x: x.mean().item(), b, groups=20)
    widths = [(interval.high - interval.low) ** 2 for interval in (one, two)]
    assert (found.high - found.low) ** 2 == pytest.approx(sum(widths), rel=0.5)  # the groups are others


def test_the_truth_is_inside_as_often_as_said():
    """Of 200 intervals of 90 % the binomial distribution has between 166 and 194 with probability 0.999."""
    inside = 0
    for _ in range(200):
        interval = jackknife(lambda x: x.var().item(), torch.randn(100, 1), level=0.9, groups=20)
        inside += interval.low <= 1.0 <= interval.high
    assert 160 <= inside <= 196


def test_of_a_frechet_distance():
    """The distance of two Gaussians three apart is 9, and one in a hundred intervals of 99 % misses it."""
    a, b = torch.randn(2000, 2), torch.randn(2000, 2) + torch.tensor([3.0, 0.0])
    found = jackknife(frechet_distance, a, b, level=0.999)
    assert found.low < 9 < found.high
    assert found.high - found.low < 2


@pytest.mark.parametrize("freedom", [1, 2, 9, 100, 101, 5000])
def test_quantiles_of_student(freedom: int):
    stats = pytest.importorskip("scipy.stats", reason="is the oracle")
    for level in (0.5, 0.95, 0.999):
        assert student_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_are_those_that_a_binomial_test_does_not_refuse(share: float):
    """Wilson's ends are the true shares p whose distance from the share is z standard deviations of p's own."""
    found = share_interval(share, 60, level=0.9)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        if 0 < end < 1:
            assert abs(end - share) == pytest.approx(1.644854 * math.sqrt(end * (1 - end) / 60), rel=1e-5)
    assert found.high - found.low > 0.04


def share_covered(values, truth: float, interval) -> float:
    """How many intervals hold the truth."""
    found = [interval(value) for value in values]
    return sum(each.low <= truth <= each.high for each in found) / len(found)


def test_few_values_and_few_groups_and_rare_events_hold_the_truth():
    """The normal distribution's quantile would hold it in 0.70, 0.65 and, of the last, in 0.45."""
    generator = torch.Generator().manual_seed(0)
    assert share_covered(torch.randn(400, 2, generator=generator), 0.0, mean_interval) > 0.92
    of_halves = lambda x: jackknife(lambda x: x.mean().item(), x, groups=2, generator=generator)  # noqa: E731
    assert share_covered(torch.randn(400, 20, generator=generator), 0.0, of_halves) > 0.92
    rare = (torch.rand(400, 60, generator=generator) < 0.01).double().mean(1).tolist()
    assert share_covered(rare, 0.01, lambda share: share_interval(share, 60)) > 0.92


def test_the_true_distance_is_in_the_interval_of_the_corrected_one():
    """Of 16 dimensions that differ by a half, from 100 vectors each: 4, and the distance itself is 5.3 on average."""
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 100, 16, generator=generator) + torch.tensor([0.0, 0.5])[:, None, None] for _ in range(30)]
    for measure, low, high in ((frechet_distance, 0.0, 0.5), (bias_corrected(frechet_distance), 0.9, 1.0)):
        covered = share_covered(pairs, 4.0, lambda pair, m=measure: jackknife(m, *pair, generator=generator))
        assert low <= covered <= high, measure
    unbiased = kernel_distance(*pairs[0])
    assert bias_corrected(kernel_distance)(*pairs[0]) == pytest.approx(unbiased, abs=0.3 * unbiased)


def test_what_a_figure_cannot_be_is_left_out():
    assert Interval(0.5, -0.1, 1.1).within(0.0, 1.0) == (0.5, 0.0, 1.0)
    assert Interval(-0.3, -0.5, -0.1).within(0.0) == (-0.3, 0.0, 0.0)


@pytest.mark.parametrize(("share", "count"), [(1.1, 5), (0.5, 0)])
def test_shares_without_an_interval_are_refused(share: float, count: int):
    with pytest.raises(ValueError, match=r"share .* and count"):
        share_interval(share, count)


@pytest.mark.parametrize(
    ("how", "message"), [({"level": 1.0}, "level"), ({"groups": 1}, "groups"), ({"groups": 9}, "9")]
)
def test_bad_arguments(how, message):
    with pytest.raises(ValueError, match=message):
        jackknife(lambda x: 0.0, torch.zeros(8), **how)
