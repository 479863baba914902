"""Wrappers around a network that keep its call signature, so that they stack."""

import copy
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalModule, for_sampling, without_guidance


class Adapter(ConditionalModule):
    """Base class: wraps a model and is called like it.

    An adapter never writes to ``conditional_inputs`` and passes every key on, consumed or not. It may
    give the model more channels than it got, but the prediction keeps the data's own. A new adapter
    writes ``forward``, which begins with ``self.check_conditions``.

    Most adapters stack in any order. Where the mathematics has one order, ``changes`` and ``needs`` say so, and the
    other is an error when the stack is built.

    Args:
        model: a network, or another adapter.
        names: the conditional inputs that this adapter consumes.

    Attributes:
        changes: what its model gets otherwise than the adapter: "size", "number of channels", "scale", "time".
        needs: what must be the process's own, as for x_t and t, when this adapter gets it. A module of an adapter,
            such as ``GuidanceInterval``, may have needs too.

    Raises:
        ValueError: if an adapter inside needs what this one changes.
    """

    changes: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: nn.Module, names: Iterable[str] = ()) -> None:
        names = frozenset(names)
        inner: frozenset[str] | None = getattr(model, "condition_names", None)
        super().__init__(None if inner is None else inner | names)
        self.model = model
        for module in model.modules():  # also below a wrapper that is not ours, such as DDP
            if isinstance(module, ConditionalModule):
                self._check_order(module)
                module.outer_names = module.outer_names | names

    def _check_order(self, inner: ConditionalModule) -> None:
        parts = [
            inner,
            *(part for name, child in inner.named_children() if name != "model" for part in child.modules()),
        ]
        changed = self.changes & frozenset().union(*(getattr(part, "needs", ()) for part in parts))
        if changed:
            own, other = type(self).__name__, type(inner).__name__
            raise ValueError(
                f"{own} changes the {' and the '.join(sorted(changed))} of what its model gets, but {other} inside it "
                f"needs the process's own; put {other} around {own}"
            )

    def unguided(self) -> nn.Module:
        """The same stack without guidance, on the same weights; an adapter that guides writes its own."""
        return self._around(model=without_guidance(self.model))

    def for_sampling(self) -> nn.Module:
        """The same stack around what the networks inside are for one sampling."""
        return self._around(**{name: for_sampling(part) for name, part in self.named_children()})

    def _around(self, **parts: nn.Module) -> nn.Module:
        """The same adapter around other parts, by name; itself, around its own."""
        if all(part is self._modules[name] for name, part in parts.items()):
            return self
        adapter = copy.copy(self)
        vars(adapter)["_modules"] = {**self._modules, **parts}
        return adapter

    def repeated(self, timestep: Tensor, passes: int) -> Tensor:
        """The times of several passes in one batch, ``[..., passes * b]``."""
        return torch.cat([timestep] * passes, dim=-1)

    @property
    def null_conditions(self) -> Mapping[str, int]:
        """The class indices that stand for "no class", by name of the condition, as the network has them."""
        return getattr(self.model, "null_conditions", {})

    @property
    def condition_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of one sample's condition, by name, as far as the network says: ``None`` is any number of tokens."""
        return getattr(self.model, "condition_shapes", {})

    @property
    def attention_blocks(self) -> tuple[str, ...]:
        """Names of the attention blocks that the input ``identity_attention`` perturbs; none if it takes no such."""
        return getattr(self.model, "attention_blocks", ())
