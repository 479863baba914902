"""Weights without memory, with which training is planned."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_parameter_registration_hook

T = TypeVar("T")


def fake_mode() -> FakeTensorMode:
    """In it, operations compute shapes and types, and no numbers; real tensors may take part."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def unallocated() -> Iterator[None]:
    """Modules that are built inside have their parameters on the meta device: no memory, no values.

    Buffers, such as the tables of schedules, and data are real.

    Example:
        >>> with unallocated():
        ...     decoder = dl.dalle2_decoder()  # 2.3 billion parameters
    """

    def replace(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return parameter
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(replace)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def faked(value: Tensor, mode: FakeTensorMode) -> Any:
    """A tensor of the same shape and type without memory, on the CPU; a parameter for a parameter."""
    with mode, torch.no_grad():
        fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")
        return nn.Parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake


def fake_copy(parts: T, module: nn.Module, mode: FakeTensorMode) -> T:
    """A copy of ``parts``, such as a module and its optimizer, with all tensors of the module without memory."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(parts, {id(value): faked(value, mode) for value in tensors})
