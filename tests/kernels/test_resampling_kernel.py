"""Halves and doubles of images against PyTorch's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.kernels import average_pool, nearest_upsample
from diffusion_labs.kernels.resampling import LEAST_SIZE, halve, repeat
from tests.kernels.comparison import operators

pytestmark = pytest.mark.usefixtures("kernels_on")

SHAPES = [(4, 64, 16, 16), (3, 48, 24, 20), (1, 300, 8, 30)]


def used(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    return any(name.startswith("diffusion_labs::") for name in operators(function, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_those_of_pytorch(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    for function, theirs in (
        (average_pool, lambda x: F.avg_pool2d(x, 2)),
        (nearest_upsample, lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest")),
    ):
        assert used(function, x)
        y, expected = function(x), theirs(x)
        torch.testing.assert_close(y, expected)
        dy = torch.randn_like(y)
        torch.testing.assert_close(torch.autograd.grad(y, x, dy), torch.autograd.grad(expected, x, dy))


def test_gradients_of_gradients_equal_those_of_pytorch() -> None:
    x = torch.randn(4, 64, 8, 8, requires_grad=True)

    def second(y: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    torch.testing.assert_close(second(halve(x, 0.25)), second(F.avg_pool2d(x, 2)))
    torch.testing.assert_close(second(repeat(x, 1.0)), second(F.interpolate(x, scale_factor=2.0)))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 64, 33, 33)])
def test_small_and_odd_images_are_pooled_by_pytorch(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert not used(average_pool, x)
    assert torch.equal(average_pool(x), F.avg_pool2d(x, 2))


def test_what_is_small_for_a_double_is_what_is_small_for_a_half() -> None:
    large, small = torch.randn(1, LEAST_SIZE // 64, 8, 8), torch.randn(1, LEAST_SIZE // 64 - 1, 8, 8)
    assert used(nearest_upsample, large)
    assert used(average_pool, nearest_upsample(large))
    assert not used(nearest_upsample, small)
    assert not used(average_pool, nearest_upsample(small))


def test_the_operators_keep_the_rules_of_pytorch() -> None:
    for operator in (halve, repeat):
        torch.library.opcheck(operator.registered, (torch.randn(2, 3, 6, 8, requires_grad=True), 0.5))


def test_the_operators_refuse_other_sizes_and_precisions() -> None:
    operators = torch.ops.diffusion_labs
    for operator, x in (
        (operators.halve, torch.randn(2, 3, 5, 8)),
        (operators.halve, torch.randn(2, 3, 8, 5)),
        (operators.halve, torch.randn(3, 8, 8)),
        (operators.repeat, torch.randn(3, 8, 8)),
        (operators.halve, torch.randn(2, 3, 8, 8).double()),
        (operators.repeat, torch.randn(2, 3, 8, 8).double()),
    ):
        with torch.no_grad(), pytest.raises(ValueError, match=r"not written for|float32"):
            operator(x, 1.0)
