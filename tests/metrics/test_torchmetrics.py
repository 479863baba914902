"""Distances are those of torchmetrics, an independent implementation, whose import takes seconds."""

import pytest
import torch

from diffusion_labs.metrics import frechet_distance, inception_score, kernel_distance

pytestmark = pytest.mark.slow


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    a, b = torch.randn(2, 80, 16, dtype=torch.float64)
    return a, 2 * b + 0.5


def test_frechet_distance(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    from torchmetrics.image.fid import _compute_fid

    a, b = features
    expected = _compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-10)


def test_kernel_distance(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    from torchmetrics.image.kid import poly_mmd

    a, b = features
    assert kernel_distance(a, b) == pytest.approx(poly_mmd(a, b).item(), rel=1e-10)


def test_inception_score() -> None:
    from torchmetrics.image.inception import InceptionScore

    class Logits(torch.nn.Module):
        num_features = 6

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :6]

    images = torch.randn(50, 1, 2, 3)
    score = InceptionScore(Logits(), splits=1)
    score.update(images)
    mean, _ = score.compute()
    assert inception_score(images.flatten(1).log_softmax(1)) == pytest.approx(mean.item(), rel=1e-5)
