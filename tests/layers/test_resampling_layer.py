"""Resampling and convolutions over 1, 2 and 3 dimensions."""

import pytest
import torch
from torch import nn

from diffusion_labs.layers import Downsample, Upsample, average_pool, conv, nearest_upsample, zero_init

SIZES = {1: (8,), 2: (4, 6), 3: (4, 2, 6)}


def centre(module: nn.Module) -> None:
    """Make a 3-wide convolution the identity on each position that it visits."""
    zero_init(module)
    with torch.no_grad():
        for channel in range(module.weight.shape[0]):
            module.weight[(channel, channel, *[1] * (module.weight.dim() - 2))] = 1.0


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_averaging_inverts_repeating_and_keeps_the_mean(dims: int) -> None:
    x = torch.randn(2, 3, *SIZES[dims])
    torch.testing.assert_close(average_pool(dims)(nearest_upsample()(x)), x)
    torch.testing.assert_close(average_pool(dims)(x).mean(), x.mean())


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("padding", "first"), [((1, 1), 0), ((0, 1), 1)])
def test_the_padding_says_which_positions_a_strided_convolution_visits(
    dims: int, padding: tuple[int, int], first: int
) -> None:
    x = torch.randn(2, 3, *SIZES[dims])
    down = Downsample(3, dims=dims, padding=padding)
    centre(down.conv)
    assert torch.equal(down(x), x[(slice(None), slice(None), *[slice(first, None, 2)] * dims)])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_upsampling_repeats_before_it_convolves(dims: int) -> None:
    x = torch.randn(2, 3, *SIZES[dims])
    up = Upsample(3, dims=dims)
    centre(up.conv)
    assert torch.equal(up(x), nearest_upsample()(x))


def test_zero_init_returns_the_module_with_only_zeros() -> None:
    module = conv(2, 3, 4, 3)
    assert any(parameter.any() for parameter in module.parameters())
    assert zero_init(module) is module
    assert not any(parameter.any() for parameter in module.parameters())


@pytest.mark.parametrize("build", [lambda d: conv(d, 1, 1, 1), average_pool, lambda d: Downsample(1, dims=d)])
def test_other_numbers_of_dimensions_are_refused(build) -> None:
    with pytest.raises(ValueError, match=r"dims \(4\) must be 1, 2 or 3"):
        build(4)
