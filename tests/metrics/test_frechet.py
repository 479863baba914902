"""The Frechet distance has its closed forms and symmetries, and statistics merge into those of the whole."""

import numpy as np
import pytest
import torch

from diffusion_labs.metrics import FeatureStatistics, frechet_distance


def statistics(mean, covariance, count=1000):
    """The statistics of vectors with exactly this mean and covariance."""
    result = FeatureStatistics(len(mean))
    result.count = count
    result.mean = torch.as_tensor(mean, dtype=torch.float64)
    result.scatter = torch.as_tensor(covariance, dtype=torch.float64) * (count - 1)
    return result


def random_covariance(dim):
    root = torch.randn(dim, dim, dtype=torch.float64)
    return root @ root.T


def test_one_dimension():
    a, b = statistics([1.0], [[4.0]]), statistics([-2.0], [[9.0]])
    assert a.frechet_distance(b) == pytest.approx(3.0**2 + (3 - 2) ** 2)


def test_commuting_covariances():
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    scales_a, scales_b = torch.rand(2, 6, dtype=torch.float64)
    means = torch.randn(2, 6, dtype=torch.float64)
    a = statistics(means[0], rotation @ scales_a.square().diag() @ rotation.T)
    b = statistics(means[1], rotation @ scales_b.square().diag() @ rotation.T)
    expected = (means[0] - means[1]).square().sum() + (scales_a - scales_b).square().sum()
    assert a.frechet_distance(b) == pytest.approx(expected.item(), rel=1e-10)


def test_any_covariances_against_eigenvalues_of_the_product():
    first, second = random_covariance(8), random_covariance(8)
    a, b = statistics(torch.zeros(8), first), statistics(torch.ones(8), second)
    roots = np.sqrt(np.linalg.eigvals((first @ second).numpy()).real)  # the published form: tr((C1 C2)^(1/2))
    expected = 8 + first.trace() + second.trace() - 2 * roots.sum()
    assert a.frechet_distance(b) == pytest.approx(expected.item(), rel=1e-9)
    assert b.frechet_distance(a) == pytest.approx(expected.item(), rel=1e-9)


def test_singular_covariances():
    direction = torch.tensor([[3.0, 4.0]])
    a = direction * torch.randn(50, 1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 5) == pytest.approx(50, rel=1e-6)
    constant = torch.ones(5, 3)
    assert frechet_distance(constant, constant + 2) == pytest.approx(12)


def test_scaling_features_scales_the_square():
    a, b = torch.randn(100, 5), torch.randn(80, 5) * 2 + 1
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * frechet_distance(a, b), rel=1e-6)


def test_samples_of_one_distribution_approach_zero():
    small, large = (frechet_distance(torch.randn(n, 4), torch.randn(n, 4)) for n in (50, 5000))
    assert large < 0.1 * small
    assert large < 0.02


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_merged_statistics_are_those_of_the_whole(offset):
    features = torch.randn(100, 7, dtype=torch.float64) + offset
    merged = FeatureStatistics(7)
    for part in features.split([1, 2, 47, 50]):
        merged.merge(FeatureStatistics.of(part))
    merged.merge(FeatureStatistics(7))
    assert merged.count == 100
    torch.testing.assert_close(merged.mean, features.mean(0), rtol=1e-14, atol=1e-13)
    torch.testing.assert_close(merged.covariance, features.T.cov(), rtol=1e-7, atol=1e-9)
    streamed = FeatureStatistics(7)
    for part in features.split(9):
        streamed.update(part)
    torch.testing.assert_close(streamed.covariance, merged.covariance, rtol=1e-7, atol=1e-9)


def test_low_precision_features_are_summed_in_float64():
    features = torch.randn(64, 3, dtype=torch.bfloat16)
    assert frechet_distance(features, features.double()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(0, 3), r"\[n, d\] with n and d at least 1, got \[0, 3\]"),
        (torch.zeros(3), r"got \[3\]"),
        (torch.full((4, 3), torch.nan), "NaN or infinity"),
        (torch.full((4, 3), torch.inf), "NaN or infinity"),
        (torch.zeros(1, 3), "at least 2 feature vectors, got 1"),
        (torch.zeros(4, 2), "2 and 3 dimensions"),
    ],
)
def test_faults(features, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(features, torch.randn(9, 3))


def test_statistics_of_other_lengths_do_not_merge():
    with pytest.raises(ValueError, match="2 dimensions, but these statistics have 3"):
        FeatureStatistics(3).merge(FeatureStatistics(2))
    with pytest.raises(ValueError, match="dim is 0"):
        FeatureStatistics(0)
