"""Bounds on the clean data."""

import pytest
import torch

import diffusion_labs as dl


def test_dynamic_threshold_is_imagen_s() -> None:
    """Against torch's own quantile: clip to [-s, s], divide by s, with s at least 1."""
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1, 2, 4, 8]).reshape(-1, 1, 1, 1)
    s = x.flatten(1).abs().quantile(0.95, dim=1).clamp(min=1).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(dl.DynamicThreshold(0.95)(x), x.clamp(-s, s) / s)


def test_dynamic_threshold_treats_each_sample_alone() -> None:
    x = torch.randn(4, 10) * 3
    clamp = dl.DynamicThreshold()
    torch.testing.assert_close(clamp(x), torch.cat([clamp(row[None]) for row in x]))


def test_dynamic_threshold_with_another_bound_scales() -> None:
    x = torch.randn(4, 10) * 3
    torch.testing.assert_close(dl.DynamicThreshold(0.9, bound=2.0)(2 * x), 2 * dl.DynamicThreshold(0.9)(x))


def test_dynamic_threshold_with_a_limit_clips_what_is_beyond() -> None:
    """At most to [-limit, limit]; with a limit of 1 it is clipping."""
    x = torch.randn(6, 30, dtype=torch.float64) * 3
    s = x.abs().quantile(0.9, dim=1, keepdim=True).clamp(1, 1.5)
    torch.testing.assert_close(dl.DynamicThreshold(0.9, limit=1.5)(x), x.clamp(-s, s) / s)
    assert torch.equal(dl.DynamicThreshold(limit=1.0)(x), dl.StaticClamp()(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dl.StaticClamp(1.0, -1.0), "low"),
        (lambda: dl.DynamicThreshold(0.0), "quantile"),
        (lambda: dl.DynamicThreshold(bound=0.0), "bound"),
        (lambda: dl.DynamicThreshold(limit=0.5), "limit"),
    ],
)
def test_impossible_bounds_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
