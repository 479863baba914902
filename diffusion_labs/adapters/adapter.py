"""Wrappers around a network that keep its call signature, so that they stack."""

from collections.abc import Callable, Iterable, Mapping

from torch import nn

from diffusion_labs.conditioning import ConditionalModule


class Adapter(ConditionalModule):
    """Base class: wraps a model and is called like it.

    An adapter never writes to ``conditional_inputs`` and passes every key on, consumed or not. It may
    give the model more channels than it got, but the prediction keeps the data's own. A new adapter
    writes ``forward``, which begins with ``self.check_conditions``.

    Args:
        model: a network, or another adapter.
        names: the conditional inputs that this adapter consumes.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] = ()) -> None:
        names = frozenset(names)
        inner: frozenset[str] | None = getattr(model, "condition_names", None)
        super().__init__(None if inner is None else inner | names)
        self.model = model
        self._accept_inside(names)

    @property
    def null_conditions(self) -> Mapping[str, int]:
        """The class indices that stand for "no class", by name of the condition, as the network has them."""
        return getattr(self.model, "null_conditions", {})

    def accept_outer(self, names: Iterable[str]) -> None:
        """Let keys that an adapter around this one consumes pass through the whole stack."""
        super().accept_outer(names)
        self._accept_inside(names)

    def _accept_inside(self, names: Iterable[str]) -> None:
        accept: Callable[[Iterable[str]], None] | None = getattr(self.model, "accept_outer", None)
        if accept is not None:
            accept(names)
