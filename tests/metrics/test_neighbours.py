"""Neighbour measures are their definitions, by loops, and tell what they are for; copies are found."""

import pytest
import torch

from diffusion_labs.metrics import copied_share, nearest, neighbour_measures


def by_definition(real, samples, k):
    """The formulas of the papers, one pair at a time."""

    def radius(x, own):
        return sorted((x - other).norm().item() for other in own)[k]

    balls = [(x, radius(x, real)) for x in real]
    inside = [[(x - y).norm().item() <= r for x, r in balls] for y in samples]
    precision = sum(any(row) for row in inside) / len(samples)
    density = sum(sum(row) for row in inside) / (k * len(samples))
    coverage = sum(any(column) for column in zip(*inside, strict=True)) / len(real)
    sample_balls = [(y, radius(y, samples)) for y in samples]
    recall = sum(any((x - y).norm().item() <= r for y, r in sample_balls) for x in real) / len(real)
    return precision, recall, density, coverage


@pytest.mark.parametrize("chunk", [3, 1024])
@pytest.mark.parametrize("k", [1, 3])
def test_definitions(k, chunk):
    real, samples = torch.randn(25, 2, dtype=torch.float64), torch.randn(17, 2, dtype=torch.float64) * 1.5
    found = neighbour_measures(real, samples, neighbours=k, chunk=chunk)
    assert found == pytest.approx(by_definition(real, samples, k))


def test_too_little_variety_and_too_little_fidelity_are_told_apart():
    """Samples near the centre are precise and cover little; samples spread too far cover much and are imprecise."""
    real = torch.randn(400, 2)
    same = neighbour_measures(real, torch.randn(400, 2))
    narrow, wide = (neighbour_measures(real, scale * torch.randn(400, 2)) for scale in (0.2, 4.0))
    assert narrow.precision > 0.95
    assert same.recall > 0.9 > 0.5 > narrow.recall
    assert same.coverage > 0.9 > 0.5 > narrow.coverage
    assert wide.recall > 0.9 > 0.5 > wide.precision
    assert wide.density < 0.5 < 0.8 < same.density < 1.2


def test_density_is_not_spoilt_by_an_outlier():
    """One far real vector has a ball that holds all samples: precision is 1, density hardly more than before."""
    real = torch.randn(200, 2)
    samples = torch.randn(200, 2) + 6
    before = neighbour_measures(real, samples)
    with_outlier = neighbour_measures(torch.cat([real, torch.tensor([[60.0, 60.0]])]), samples)
    assert before.precision < 0.1
    assert with_outlier.precision == 1.0
    assert with_outlier.density < before.density + 1 / 5 + 1e-9


def test_copies_are_found_and_new_samples_are_not():
    training = torch.rand(300, 1, 6, 6)
    copied = training[[7, 250]] + 0.01 * torch.randn(2, 1, 6, 6)
    new = torch.rand(40, 1, 6, 6)
    found = nearest(torch.cat([copied, new]), training, chunk=5)
    assert found.indices[:2].tolist() == [7, 250]
    assert copied_share(found.ratios) == pytest.approx(2 / 42)
    exact = ((new[0] - training).flatten(1)).double().norm(dim=1)
    assert found.distances[2] == pytest.approx(exact.min().item())
    assert found.indices[2] == exact.argmin()


def test_duplicates_of_the_data_have_no_second_nearest_at_a_distance():
    training = torch.tensor([[0.0], [0.0], [5.0]])
    assert nearest(torch.tensor([[0.0]]), training).ratios.tolist() == [1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neighbour_measures(torch.zeros(5, 2), torch.zeros(9, 2)), r"less than the 5 real vectors"),
        (lambda: neighbour_measures(torch.zeros(9, 2), torch.zeros(9, 3)), "same extractor"),
        (lambda: nearest(torch.zeros(2, 4), torch.zeros(1, 4)), "at least 2"),
        (lambda: nearest(torch.zeros(2, 4), torch.zeros(3, 5)), "resize"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_samples_that_are_the_data_are_perfect_even_where_the_data_has_duplicates():
    real = torch.randn(20, 8).repeat_interleave(6, 0)
    found = neighbour_measures(real, real.clone(), neighbours=5)
    assert found[:2] == (1.0, 1.0)
    assert found.coverage == 1.0
