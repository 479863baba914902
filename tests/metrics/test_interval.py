"""Intervals hold the truth as often as they say, and are exact for a mean."""

import math

import pytest
import torch

from diffusion_labs.metrics import frechet_distance, jackknife, mean_interval


def test_a_group_for_each_row_is_the_standard_error_of_a_mean():
    x = torch.randn(40, dtype=torch.float64)
    found = jackknife(lambda x: x.mean().item(), x, groups=40)
    reach = 1.959964 * x.std().item() / math.sqrt(40)
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


@pytest.mark.parametrize(
    ("how", "message"), [({"level": 1.0}, "level"), ({"groups": 1}, "groups"), ({"groups": 9}, "9")]
)
def test_bad_arguments(how, message):
    with pytest.raises(ValueError, match=message):
        jackknife(lambda x: 0.0, torch.zeros(8), **how)
