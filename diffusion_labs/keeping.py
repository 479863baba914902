"""What does not change from step to step of a sampling is computed once."""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

AT_ONCE = 8  # steps whose times are embedded together


Memory = dict[Callable[..., Any], tuple[Any, Any]]
"""What the calls of a model in one sampling share: the last arguments and result of each function."""

_open: ContextVar[Memory | None] = ContextVar("the memory of the sampling that calls its model now", default=None)


def call_with(memory: Memory, model: Callable[..., T], *arguments: Any) -> T:
    """``model(*arguments)``, where ``kept`` remembers in ``memory``; it is forgotten with the sampling whose it is."""
    if torch.compiler.is_compiling():
        return model(*arguments)
    outer = _open.set(memory)
    try:
        return model(*arguments)
    finally:
        _open.reset(outer)


def kept(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)``, or what it gave last in this sampling, if it was given the very same.

    The same are tensors that are the same object and were not changed since, in mappings and sequences too, and other
    values that are equal. So a caller need not know whether its arguments change from step to step: if they do, it
    costs the computation alone. Weights are taken not to change in a sampling, and a result must not be changed.

    Outside of a sampler's loop, where gradients are recorded, and in a graph of ``torch.compile`` or ``torch.export``,
    it is the call.

    Args:
        function: a method of a module, or a module: one for each result that is remembered.
        *arguments: all that the result depends on but the module itself.

    Example:
        >>> key, context, memory = nn.Linear(4, 8), torch.randn(2, 5, 4), {}
        >>> with torch.no_grad():
        ...     first, again = (call_with(memory, lambda: kept(key, context)) for _ in range(2))
        >>> first is again
        True
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return function(*arguments)
    memory = _open.get()
    if memory is None:
        return function(*arguments)
    before = memory.get(function)
    if before is not None and _same(arguments, before[0]):
        result: T = before[1]
        return result
    memory.pop(function, None)  # not at the same time as what takes its place
    result = function(*arguments)
    memory[function] = (_noted(arguments), result)
    return result


def in_steps(table: Tensor) -> list[Tensor]:
    """The rows of a table of all steps, ``[s, ...]``, of which ``stepped`` knows that others come after them."""
    if torch.compiler.is_compiling():
        return list(table.unbind())
    return [row for part in table.split(AT_ONCE) for row in _rows(part)]


def stepped(function: Callable[..., Tensor], value: Tensor, *arguments: Any) -> Tensor:
    """``function(value, *arguments)`` for what belongs to a step, such as its time: made for several steps at once.

    One product of matrices for the times of eight steps takes less time than eight. Where ``value`` is one of
    ``in_steps``, or what ``stepped`` gave for such a one, the function is called with the table of these steps,
    ``[s, ...]``, of which ``value`` is a row, and gives a row of the result. Elsewhere, and where ``arguments`` are not
    the same in each step, see ``kept``, it is the call.

    Args:
        function: as of ``kept``; takes ``[..., b]`` or ``[..., b, e]`` for ``value``, with dimensions before.
        value: of this step.
        *arguments: of all steps.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return function(value, *arguments)
    memory, row = _open.get(), getattr(value, "row_of_steps", None)
    if memory is None or row is None:
        return function(value, *arguments)
    table, place = row
    before = memory.get(function)
    if before is None or before[0][0][0] is not table:
        memory.pop(function, None)
        before = memory[function] = _noted((table, *arguments)), _rows(function(table, *arguments))
    elif not _same((table, *arguments), before[0]):
        return function(value, *arguments)
    result: Tensor = before[1][place]
    return result


def _rows(table: Tensor) -> list[Tensor]:
    rows = list(table.unbind())
    for place, row in enumerate(rows):
        row.row_of_steps = table, place  # type: ignore[attr-defined]
    return rows


def _noted(value: Any) -> Any:
    """A value as it is now: with the number of the changes of each tensor."""
    if isinstance(value, Tensor):
        return value, _version(value)
    if isinstance(value, Mapping):
        return {key: _noted(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_noted(each) for each in value]
    return value


def _same(value: Any, noted: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(noted, tuple) and value is noted[0] and _version(value) == noted[1]
    if isinstance(value, Mapping):
        return (
            isinstance(noted, dict)
            and value.keys() == noted.keys()
            and all(_same(each, noted[key]) for key, each in value.items())
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return isinstance(noted, list) and len(value) == len(noted) and all(map(_same, value, noted))
    return not isinstance(noted, tuple) and bool(value == noted)


def _version(value: Tensor) -> Any:
    """The number of changes in place; one of its own for a tensor of inference mode, which does not count them."""
    return object() if value.is_inference() else value._version
