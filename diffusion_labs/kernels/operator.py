"""Custom operators without PyTorch's dispatcher where nothing listens to it."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Sizes = tuple[Any, ...]  # of tensors: integers, or symbols of them where there is no memory


class Operator(Generic[Arguments, Result]):
    """A custom operator of PyTorch, ``torch.ops.diffusion_labs.<name>``.

    The dispatcher takes as long as a small kernel. In sampling, where there are no gradients, nothing asks for it.

    Args:
        function: computes the result, without writing to its arguments.
    """

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self.function = function
        self.registered = torch.library.custom_op(f"diffusion_labs::{function.__name__}", function, mutates_args=())
        self.register_fake = self.registered.register_fake
        self.register_autograd = self.registered.register_autograd

    def __call__(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        result: Result = (self.registered if observed() else self.function)(*arguments, **named)
        return result


def mismatch(name: str, *tensors: Tensor | None) -> ValueError:
    """The error of an operator that is not written for its tensors: their memory would be read beyond the end."""
    sizes = ", ".join(str(tensor if tensor is None else tuple(tensor.shape)) for tensor in tensors)
    return ValueError(f"{name} is not written for tensors of these sizes together: {sizes}")


def observed() -> bool:
    """Whether operations are differentiated, compiled, traced, counted or timed."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
        or torch._C._current_graph_task_id() >= 0  # in backward passes, of which batches may be computed
    )
