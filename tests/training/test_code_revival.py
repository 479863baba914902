"""Dead codes come back."""

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.training.code_revival import CodeRevival
from tests.catalogue import tiny_vq


def codes_used_after_training(revive_after: int | None) -> tuple[float, float]:
    """The share of the codes in use, and the error, after 60 updates from a codebook far away from the features."""
    torch.manual_seed(0)
    model = dl.vq_model(
        in_channels=1, channels=(8, 12), latent_channels=3, num_res_blocks=1, num_groups=4, num_codes=16
    )
    nn.init.constant_(model.quantizer.codebook, 0.0)
    with torch.no_grad():
        model.quantizer.codebook[1:] += 50.0  # only the first can be nearest
    objective = dl.VQObjective(model, revive_after=revive_after)
    optimizer = torch.optim.Adam(objective.parameter_groups(3e-3), betas=(0.5, 0.9))
    pictures = torch.rand(16, 1, 8, 8).round() * 2 - 1
    for step in range(60):
        if step == 50:
            objective.metrics()
        optimizer.zero_grad()
        objective({"x": pictures}).backward()
        optimizer.step()
        objective.after_update(step + 1)
    metrics = objective.metrics()
    return metrics["codes_used"].item(), metrics["reconstruction"].item()


def test_a_collapsed_codebook_is_used_again_and_only_by_revival() -> None:
    collapsed, error = codes_used_after_training(None)
    revived, lower_error = codes_used_after_training(10)
    assert collapsed == 1 / 16
    assert revived >= 0.7
    assert lower_error < 0.95 * error


def test_unused_codes_become_features_of_the_latest_batch_and_used_ones_stay() -> None:
    revival = CodeRevival(4, 2, window=3)
    codebook = nn.Parameter(torch.arange(8.0).reshape(4, 2))
    before = codebook.detach().clone()
    h = torch.randn(3, 2, 5, 5)
    revival.observe(h, torch.tensor([1, 0, 0, 0]))
    revival.after_update(codebook, 1)
    h = torch.randn(3, 2, 5, 5)
    revival.observe(h, torch.tensor([0, 0, 2, 0]))
    revival.after_update(codebook, 2)
    assert torch.equal(codebook, before)
    revival.after_update(codebook, 3)
    assert torch.equal(codebook[[0, 2]], before[[0, 2]])
    vectors = h.movedim(1, -1).reshape(-1, 2)
    assert all((vectors == codebook[i]).all(1).any() for i in (1, 3))
    assert not revival.counts.any()


def test_revived_codes_are_spread_over_the_features() -> None:
    """Each is a feature at random: of 1000, at least 600 of 1000 differ (in expectation 632)."""
    revival = CodeRevival(1000, 1, window=1)
    codebook = nn.Parameter(torch.zeros(1000, 1))
    revival.observe(torch.arange(1000.0).reshape(10, 1, 100), torch.zeros(1000, dtype=torch.long))
    revival.after_update(codebook, 1)
    assert len(codebook.unique()) > 600


@pytest.mark.parametrize("training", [True, False])
def test_only_training_counts(training: bool) -> None:
    objective = dl.VQObjective(tiny_vq()).train(training)
    objective({"x": torch.randn(2, 1, 8, 8)})
    assert objective.revival.counts.sum() == (2 * 16 if training else 0)
    assert objective.counts.sum() == (2 * 16 if training else 0)
