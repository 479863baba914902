"""Tiles: local functions give what they give for the whole, and what differs between tiles never jumps."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import tiny_kl

LOCAL = {
    "itself": lambda x: x,
    "blurred": lambda x: F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1),
    "halved": lambda x: F.avg_pool2d(x, 2),
    "tripled": lambda x: F.interpolate(x, scale_factor=3, mode="nearest"),
}


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("size", [(24, 40), (16, 16), (10, 38), (30, 12)])
def test_local_functions_on_tiles_of_any_size(name: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    seen: list[int] = []

    def function(part: Tensor) -> Tensor:
        seen.extend(part.shape[2:])
        return LOCAL[name](part)

    torch.testing.assert_close(dl.tiled(function, x, tile=16, overlap=8), LOCAL[name](x))
    assert max(seen) <= 16


@pytest.mark.parametrize("overlap", [0, 2, 4, 8])
def test_tiles_that_differ_by_a_step_meet_in_a_slope(overlap: int) -> None:
    values = itertools.count()
    x = torch.zeros(1, 1, 64, dtype=torch.float64)
    y = dl.tiled(lambda part: torch.full_like(part, float(next(values))), x, tile=16, overlap=overlap)
    steps = y.diff().flatten()
    assert y[0, 0, 0] == 0
    assert y[0, 0, -1] == next(values) - 1
    assert steps.min() > -1e-12
    assert steps.max() < 1 / (overlap - 2 * (overlap // 4) + 1) + 1e-12


def test_an_encoder_of_convolutions_alone_is_exact() -> None:
    """It sees 19 pixels far, of which 20 are a quarter of the overlap."""
    model = tiny_kl(middle_attention=False, channels=(4, 4)).double()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    x = torch.randn(1, 1, 112, 96, dtype=torch.float64)
    torch.testing.assert_close(dl.tiled(model.describe, x, tile=96, overlap=80), model.describe(x))


def test_an_autoencoder_of_one_tile_is_itself() -> None:
    model = tiny_kl()
    x = torch.randn(1, 1, 16, 12)
    torch.testing.assert_close(dl.tiled(model.describe, x, tile=16, overlap=4), model.describe(x))


@pytest.mark.parametrize(("samples", "calls"), [(1, 5), (2, 3), (9, 1)])
def test_slices_of_a_batch_are_the_batch(samples: int, calls: int) -> None:
    model, x, seen = tiny_kl().double(), torch.randn(5, 1, 16, 12, dtype=torch.float64), []

    def function(some: Tensor) -> Tensor:
        seen.append(len(some))
        return dl.tiled(model.describe, some, tile=8, overlap=4)

    torch.testing.assert_close(dl.sliced(function, x, samples=samples), dl.tiled(model.describe, x, tile=8, overlap=4))
    assert len(seen) == calls
    assert max(seen) <= samples


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"samples \(0\) must be at least 1"):
        dl.sliced(lambda x: x, torch.zeros(2, 1), samples=0)
    with pytest.raises(ValueError, match=r"overlap \(8\) must be at least 0 and less than tile \(8\)"):
        dl.tiled(lambda x: x, torch.zeros(1, 1, 8, 8), tile=8, overlap=8)
    with pytest.raises(ValueError, match=r"overlap by 3, which is no whole position of the result, at 1/2"):
        dl.tiled(LOCAL["halved"], torch.zeros(1, 1, 16, 16), tile=8, overlap=3)
