"""The classifier learns real digits in seconds, is reproducible, and refuses what it cannot judge."""

import pytest
import torch

from diffusion_labs.data import Digits
from diffusion_labs.metrics import (
    ImageClassifier,
    accuracy,
    extract_features,
    predict_classes,
    train_classifier,
)
from diffusion_labs.metrics.classifier import random_shift, to_float


@pytest.fixture(scope="module")
def stripes():
    """Two classes of noisy 8x8 images: horizontal and vertical stripes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    lines = (torch.arange(8) % 2 * 200).expand(8, 8)
    images = torch.where(labels.view(-1, 1, 1) == 0, lines, lines.T)
    return (images + torch.randint(0, 50, (64, 8, 8), generator=generator)).byte().unsqueeze(1), labels


@pytest.fixture(scope="module")
def classifier(stripes):
    return train_classifier(*stripes, 2, steps=30, batch_size=32)


def test_digits():
    train, test = Digits("train"), Digits("test")
    digit_classifier = train_classifier(train.images, train.labels, 10, steps=150)
    assert accuracy(digit_classifier, test.images, test.labels) >= 0.975


def test_same_seed_same_classifier(stripes, classifier):
    torch.manual_seed(123)
    again = train_classifier(*stripes, 2, steps=30, batch_size=32)
    other = train_classifier(*stripes, 2, steps=30, batch_size=32, seed=1)
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(classifier.output.weight, other.output.weight)


def test_global_state_is_left_alone(stripes):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train_classifier(*stripes, 2, steps=2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_result_is_in_eval_mode_and_measuring_keeps_the_mode(stripes, classifier):
    assert not classifier.training
    classifier.train()
    assert accuracy(classifier, *stripes) == 1.0
    assert classifier.training
    classifier.eval()


def test_accuracy_is_the_share_of_right_labels(stripes, classifier):
    images, labels = stripes
    wrong = labels.clone()
    wrong[:16] = 1 - wrong[:16]
    assert accuracy(classifier, images, wrong) == 0.75
    assert accuracy(classifier, to_float(images), wrong, batch_size=7) == 0.75
    assert torch.equal(predict_classes(classifier, images), labels)


def test_features_do_not_depend_on_the_batch(stripes, classifier):
    images, _ = stripes
    features = extract_features(classifier, images)
    assert features.shape == (64, 64)
    torch.testing.assert_close(extract_features(classifier, images, batch_size=5), features)
    logits = classifier(to_float(images))
    torch.testing.assert_close(classifier.output(features), logits)


@pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 48, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(size, channels):
    network = ImageClassifier(channels, size, 5).eval()
    x = torch.randn(2, channels, size, size)
    assert network(x).shape == (2, 5)
    assert network.features(x).shape == (2, 64)
    network(x).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_shift_moves_whole_pixels_and_repeats_edges():
    x = torch.arange(25.0).view(1, 1, 5, 5).expand(200, 1, 5, 5)
    shifted = random_shift(x, 1, torch.Generator().manual_seed(0))
    expected = {
        tuple(x[0, 0].index_select(0, rows).index_select(1, columns).flatten().tolist())
        for rows in (torch.arange(5) + move for move in (-1, 0, 1))
        for columns in (torch.arange(5) + move for move in (-1, 0, 1))
        for rows, columns in [(rows.clamp(0, 4), columns.clamp(0, 4))]
    }
    assert {tuple(image.flatten().tolist()) for image in shifted} == expected


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 8, 8), torch.zeros(4).long(), "square uint8"),
        (torch.zeros(4, 1, 8, 9).byte(), torch.zeros(4).long(), "square uint8"),
        (torch.zeros(0, 1, 8, 8).byte(), torch.zeros(0).long(), "n at least 1"),
        (torch.zeros(4, 8, 8).byte(), torch.zeros(4).long(), "n at least 1"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.zeros(3).long(), "4 integers"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.zeros(4), "4 integers"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.tensor([0, 1, 2, 1]), r"span 0..2, outside 0..1"),
        (torch.zeros(1, 1, 8, 8).byte(), torch.zeros(1).long(), r"images \(1\)"),
    ],
)
def test_training_faults(images, labels, message):
    with pytest.raises(ValueError, match=message):
        train_classifier(images, labels, 2)


def test_measuring_faults(classifier):
    labels = torch.zeros(2).long()
    with pytest.raises(ValueError, match="NaN"):
        accuracy(classifier, torch.full((2, 1, 8, 8), torch.nan), labels)
    with pytest.raises(ValueError, match=r"x must be float \[b, 1, 8, 8\]"):
        accuracy(classifier, torch.zeros(2, 1, 9, 9), labels)
    with pytest.raises(ValueError, match="2 integers"):
        accuracy(classifier, torch.zeros(2, 1, 8, 8), labels[:1])
    with pytest.raises(ValueError, match=r"torch.int64 \[2, 1, 8, 8\]"):
        classifier(torch.zeros(2, 1, 8, 8).long())
    with pytest.raises(ValueError, match="n at least 1"):
        extract_features(classifier, torch.zeros(0, 1, 8, 8))


@pytest.mark.parametrize("arguments", [(0, 8, 2), (1, 3, 2), (1, 8, 1)])
def test_construction_faults(arguments):
    with pytest.raises(ValueError, match=r"must be positive|at least"):
        ImageClassifier(*arguments)
