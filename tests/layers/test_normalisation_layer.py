"""Group normalisation: its formula in double precision, and its precision in half."""

import pytest
import torch

from diffusion_labs.layers import GroupNorm


def group_norm_by_hand(x: torch.Tensor, norm: GroupNorm) -> torch.Tensor:
    groups = x.reshape(x.shape[0], norm.num_groups, -1)
    mean = groups.mean(dim=2, keepdim=True)
    variance = ((groups - mean) ** 2).mean(dim=2, keepdim=True)
    y = ((groups - mean) / (variance + norm.eps).sqrt()).reshape(x.shape)
    shape = (1, -1, *[1] * (x.dim() - 2))
    return y * norm.weight.reshape(shape) + norm.bias.reshape(shape)


def randomised(norm: GroupNorm) -> GroupNorm:
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("size", [(), (5,), (3, 4), (2, 3, 4)])
def test_formula_in_float64(size: tuple[int, ...]) -> None:
    norm = randomised(GroupNorm(6, num_groups=3, eps=1e-2).double())
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    y = norm(x)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, group_norm_by_hand(x, norm), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("half_weights", [True, False])
def test_half_precision_input_is_rounded_only_once(dtype: torch.dtype, half_weights: bool) -> None:
    norm = randomised(GroupNorm(8, num_groups=2).to(dtype if half_weights else torch.float32))
    x = (300 + 20 * torch.randn(2, 8, 16, 16)).to(dtype)
    exact = torch.nn.functional.group_norm(x.float(), 2, norm.weight.float(), norm.bias.float())
    y = norm(x)
    assert y.dtype == dtype
    assert torch.equal(y, exact.to(dtype))


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_groups \(32\) must divide num_channels \(48\)"):
        GroupNorm(48)
    with pytest.raises(ValueError, match=r"num_groups \(0\)"):
        GroupNorm(48, num_groups=0)
