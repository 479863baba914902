"""What ``torch.compile`` may take as constant."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def constant(function: F) -> F:
    """Have ``torch.compile`` call a function while it traces, and take its result as part of the graph.

    The arguments are constants too: with other numbers or modules it is compiled again, but not with other values in
    a tensor, which therefore must be made of constants. It is ``torch.compiler.assume_constant_result``, which imports
    the compiler, for 2 CPU seconds, to set this attribute.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
