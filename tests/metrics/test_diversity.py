"""The within-class distance is the mean over all pairs, whatever the chunk."""

import itertools

import pytest
import torch

from diffusion_labs.metrics import within_class_distance


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_mean_over_pairs_then_over_classes(chunk):
    features, labels = torch.randn(30, 4), torch.tensor([0] * 20 + [3] * 9 + [7])
    means = []
    for label in (0, 3):
        points = features[labels == label].double()
        pairs = [(a - b).norm().item() for a, b in itertools.combinations(points, 2)]
        means.append(sum(pairs) / len(pairs))
    assert within_class_distance(features, labels, chunk=chunk) == pytest.approx(sum(means) / 2, rel=1e-12)


def test_no_digits_are_lost_far_from_the_origin():
    features = torch.tensor([[1e8], [1e8 + 1.0]], dtype=torch.float64)
    assert within_class_distance(features, torch.zeros(2).long()) == pytest.approx(1.0)


def test_properties():
    features, labels = torch.randn(40, 3), torch.arange(40) % 4
    distance = within_class_distance(features, labels)
    shift = 10 * torch.randn(4, 3)[labels]  # moving whole classes changes nothing
    assert within_class_distance(features + shift, labels) == pytest.approx(distance, rel=1e-5)
    assert within_class_distance(2 * features, labels) == pytest.approx(2 * distance, rel=1e-6)
    assert within_class_distance(shift, labels) == 0


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0).long(), "at least 1"),
        (torch.zeros(3), torch.zeros(3).long(), r"got \[3\]"),
        (torch.full((3, 3), torch.nan), torch.zeros(3).long(), "NaN"),
        (torch.zeros(3, 3), torch.zeros(2).long(), "3 integers"),
        (torch.zeros(3, 3), torch.zeros(3), "3 integers"),
        (torch.zeros(3, 3), torch.arange(3), "no class has two samples"),
    ],
)
def test_faults(features, labels, message):
    with pytest.raises(ValueError, match=message):
        within_class_distance(features, labels)


def test_chunk_must_be_positive():
    with pytest.raises(ValueError, match="chunk is 0"):
        within_class_distance(torch.zeros(2, 1), torch.zeros(2).long(), chunk=0)
