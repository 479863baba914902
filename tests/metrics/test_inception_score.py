"""The score is 1 for no information and the number of classes for all, and torchmetrics' formula between."""

import pytest
import torch

from diffusion_labs.metrics import inception_score


@pytest.mark.parametrize("classes", [2, 10])
def test_ends(classes):
    sure = torch.eye(classes).repeat(3, 1).log()
    assert inception_score(sure) == pytest.approx(classes)
    assert inception_score(sure[:1].expand(5, -1)) == pytest.approx(1)
    same = torch.randn(classes).log_softmax(0)
    assert inception_score(same.expand(5, -1)) == pytest.approx(1)


def test_entropy_of_the_mean_less_the_mean_of_entropies():
    log_p = torch.randn(50, 6, dtype=torch.float64).log_softmax(1)
    p = log_p.exp()
    mean = p.mean(0)
    information = -(mean * mean.log()).sum() + (p * log_p).sum(1).mean()
    assert inception_score(log_p) == pytest.approx(information.exp().item(), rel=1e-12)


BALANCED = torch.tensor([[0.5, 0.25], [0.75, 0.5]]).log()  # rows of the sums 0.75 and 1.25


@pytest.mark.parametrize("bad", [torch.zeros(3, 4), torch.zeros(4), torch.zeros(0, 4), BALANCED])
def test_what_is_no_distribution_is_refused(bad):
    with pytest.raises(ValueError, match="log_probabilities"):
        inception_score(bad)
