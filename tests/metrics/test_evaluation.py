"""An evaluation finds real images as good as real ones, and says what is wrong with others."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion_labs.metrics import (
    ClassifierFeatures,
    TorchScriptFeatures,
    evaluate,
    frechet_distance,
    share_interval,
    train_classifier,
)


@pytest.fixture(scope="module")
def extractor(digits_data) -> ClassifierFeatures:
    images, labels = digits_data
    return ClassifierFeatures(train_classifier(images, labels, 10, steps=60))


@pytest.fixture(scope="module")
def digits_data() -> tuple[Tensor, Tensor]:
    from diffusion_labs.data import Digits

    digits = Digits()
    return digits.images, digits.labels


def test_real_images_are_as_good_as_real_images(extractor, digits_data) -> None:
    images, _ = digits_data
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    found = evaluate(images[order[:400]], images[order[400:]], extractor)
    assert found.count == 400
    kernel = found.measures["kernel_distance"].samples
    assert kernel.low < 0 < kernel.high
    for name in ("precision", "recall", "coverage", "inception_score"):
        measured = found.measures[name]
        assert measured.samples.low <= measured.samples.value <= measured.samples.high
        assert abs(measured.samples.value - measured.real) < 0.1 * max(1.0, abs(measured.real)), name
    assert found.measures["copied"].samples.value <= found.measures["copied"].real + 0.02


def test_intervals_are_where_figures_can_be_and_none_is_empty(extractor, digits_data) -> None:
    images, _ = digits_data
    measures = evaluate(images[:60], images[100:220], extractor).measures
    for name, (low, high) in {
        "frechet_distance": (0, math.inf),
        "density": (0, math.inf),
        "inception_score": (1, 10),
        **dict.fromkeys(("precision", "recall", "coverage", "copied"), (0, 1)),
    }.items():
        found = measures[name].samples
        assert low <= found.low < found.high <= high, name
    assert measures["copied"].samples == share_interval(0.0, 60)


class FixedFeatures:
    """Four of the values of an image, and classes that are linear in them."""

    name = "fixed"

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1).double()[:, :4] / 64

    def log_probabilities(self, images: Tensor) -> Tensor:
        return self.features(images).log_softmax(1)


def test_as_good_a_model_has_the_inception_score_of_real_images_in_its_interval() -> None:
    """The interval of the score alone would hold it in 0.84: the real images' is as uncertain."""
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for seed in range(60):
        samples, real = (torch.randint(256, (n, 1, 2, 2), generator=generator).byte() for n in (40, 80))
        score = evaluate(samples, real, FixedFeatures(), seed=seed).measures["inception_score"]
        inside += score.samples.low <= score.real <= score.samples.high
    assert inside >= 55


def test_noise_copies_and_one_class_are_told_apart(extractor, digits_data) -> None:
    images, labels = digits_data
    noise = evaluate(torch.randint_like(images[:300], 256), images, extractor).measures
    copies = evaluate(images[:300], images, extractor).measures
    one_class = evaluate(images[labels == 3][:150], images, extractor).measures
    assert noise["frechet_distance"].samples.low > 10 * noise["frechet_distance"].real
    assert noise["precision"].samples.high < 0.5
    assert copies["copied"].samples.value > 0.9 > 0.1 > copies["copied"].real
    assert one_class["recall"].samples.high < 0.5 < one_class["precision"].samples.low
    assert one_class["inception_score"].samples.high < 0.5 * one_class["inception_score"].real


def test_floats_are_the_bytes_that_they_are_written_as(extractor, digits_data) -> None:
    images, _ = digits_data
    as_bytes = evaluate(images[:100], images[100:], extractor)
    as_floats = evaluate(images[:100].float() / 127.5 - 1, images[100:], extractor)
    assert as_bytes == as_floats


def test_a_network_of_another_library_from_a_file(tmp_path: Path, digits_data) -> None:
    """Called with bytes of three channels, and asked for features where it takes that."""

    class Means(torch.nn.Module):
        def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
            assert images.dtype == torch.uint8
            assert images.shape[1] == 3
            means = images.float().mean(dim=[2, 3])
            return means if return_features else means.sum(dim=1)

    images, _ = digits_data
    path = tmp_path / "means.pt"
    torch.jit.script(Means()).save(str(path))
    extractor = TorchScriptFeatures(path, batch_size=64)
    expected = images[:100].float().mean(dim=[2, 3]).expand(-1, 3)
    torch.testing.assert_close(extractor.features(images[:100]), expected)
    found = evaluate(images[:100], images[100:300], extractor)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    reference = extractor.features(images[100:300][order[:100]])
    assert found.measures["frechet_distance"].samples.value == pytest.approx(frechet_distance(reference, expected))
    assert "inception_score" not in found.measures
    assert "means.pt" in found.extractor


@pytest.mark.parametrize(
    ("samples", "real", "message"),
    [
        (torch.zeros(50, 1, 8, 8), torch.zeros(50, 1, 9, 9), "of one size"),
        (torch.zeros(50, 1, 8, 8), torch.zeros(19, 1, 8, 8), "too few"),
    ],
)
def test_what_cannot_be_compared(extractor, samples: Tensor, real: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(samples, real, extractor)


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"weights\.pt cannot be read as a TorchScript network"):
        TorchScriptFeatures(path)
