"""How the tests of the kernels compare, and find out what computes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad


def error(value: Tensor, exact: Tensor) -> float:
    """Relative to the norm of what is exact."""
    return float((value.detach().double() - exact.detach()).norm() / exact.detach().norm())


def operators(function: Callable[..., object], *inputs: Tensor | None) -> set[str]:
    """The names of the operators that a call uses."""
    with torch.profiler.profile() as profile:
        function(*inputs)
    return {event.key for event in profile.key_averages()}


def assert_same_error(function: Callable[..., object], theirs: Callable[..., object]) -> None:
    """Two functions raise the same."""
    with pytest.raises(Exception) as expected:  # noqa: PT011
        theirs()
    with pytest.raises(expected.type) as raised:
        function()
    assert str(raised.value) == str(expected.value)


def tangent(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor | None:
    """The derivative of a function in a direction, forwards."""
    with forward_ad.dual_level():
        result: Tensor | None = forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction))).tangent
    return result
