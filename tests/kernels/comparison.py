"""How the tests of the kernels compare, and find out what computes."""

from collections.abc import Callable

import torch
from torch import Tensor


def error(value: Tensor, exact: Tensor) -> float:
    """Relative to the norm of what is exact."""
    return float((value.detach().double() - exact.detach()).norm() / exact.detach().norm())


def operators(function: Callable[..., object], *inputs: Tensor | None) -> set[str]:
    """The names of the operators that a call uses."""
    with torch.profiler.profile() as profile:
        function(*inputs)
    return {event.key for event in profile.key_averages()}
