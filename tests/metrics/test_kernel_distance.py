"""The kernel distance is the mean over all pairs, and unbiased."""

import itertools

import pytest
import torch

from diffusion_labs.metrics import kernel_distance


def kernel(x, y):
    return (torch.dot(x, y).item() / len(x) + 1) ** 3


@pytest.mark.parametrize("chunk", [1, 4, 1024])
def test_mean_over_pairs_of_different_vectors(chunk):
    a, b = torch.randn(9, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64) + 1
    within = [sum(kernel(x, y) for x, y in itertools.permutations(s, 2)) / (len(s) * (len(s) - 1)) for s in (a, b)]
    across = sum(kernel(x, y) for x, y in itertools.product(a, b)) / (len(a) * len(b))
    assert kernel_distance(a, b, chunk=chunk) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_is_zero_on_average_for_one_distribution_however_few_the_vectors():
    """The standard error of the mean of 400 estimates is a twentieth of their spread."""
    values = torch.tensor([kernel_distance(torch.randn(5, 2), torch.randn(8, 2)) for _ in range(400)])
    assert abs(values.mean()) < 4 * values.std() / 20
    assert values.min() < 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 2), torch.zeros(3, 2), "at least 2"),
        (torch.zeros(3, 2), torch.zeros(3, 4), "same extractor"),
        (torch.full((3, 2), torch.nan), torch.zeros(3, 2), "NaN"),
    ],
)
def test_bad_features(a, b, message):
    with pytest.raises(ValueError, match=message):
        kernel_distance(a, b)
    with pytest.raises(ValueError, match=message):
        kernel_distance(b, a)
