"""What a computation needs, followed operation by operation."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from torch.utils.weak import WeakIdKeyDictionary


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape)


FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # which PyTorch leaves out
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Meter(TorchDispatchMode):
    """Counts, while it is on, the bytes of tensors that are alive, and floating point operations.

    A storage is counted once, from the operation that makes it until nothing refers to it. So what the backward pass
    will need is counted, and so are the temporary results of an operation that is made of others. What a kernel takes
    for itself is not seen. Tensors need no memory of their own to be counted.

    Attributes:
        live: bytes of tensors that are alive now, without gradients.
        gradients: bytes of what ``keep_gradient`` was told of.
        casts: of ``live``, the bytes of casts of what ``leave_out`` was told to look for.
        highest: the most that ``live`` was while the gradients had a size, by that size.
        highest_uncast: the most that ``live - casts`` was, likewise.
        flops: of matrix products, convolutions and attention; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.gradients = 0
        self.casts = 0
        self.highest: dict[int, int] = {}
        self.highest_uncast: dict[int, int] = {}
        self.flops = 0
        self._entries = WeakIdKeyDictionary()  # of storages: bytes, and whether they are a gradient's
        self._watched = WeakIdKeyDictionary()  # storages whose casts are counted apart

    def leave_out(self, tensors: Iterable[Tensor], *, watch_casts: bool = False) -> None:
        """Do not count tensors, which are there before. Their casts to another dtype are, and apart, if watched."""
        for value in tensors:
            self._entries[value.untyped_storage()] = None
            if watch_casts:
                self._watched[value.untyped_storage()] = None

    def count(self, values: Any) -> None:
        """Count the tensors in nested data, if they are not known yet."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.untyped_storage() not in self._entries:
                self._add(value.untyped_storage())

    def keep_gradient(self, gradient: Tensor) -> None:
        """Count a tensor as a gradient from now on."""
        entry = self._entries.get(gradient.untyped_storage())
        if entry is not None and not entry[1]:
            self._free(entry)
            entry[1] = True
            self.gradients += entry[0]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].untyped_storage() in self._watched:
            self._count_cast(result.untyped_storage())
        self.count(result)
        if func.overloadpacket in FLOPS:
            self.flops += FLOPS[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        entry = self._entries[storage] = [storage.nbytes(), False]
        weakref.finalize(storage, self._free, entry)
        self.live += entry[0]
        self._note_highest()

    def _count_cast(self, storage: torch.UntypedStorage) -> None:
        self.casts += storage.nbytes()
        weakref.finalize(storage, self._free_cast, storage.nbytes())
        self._add(storage)

    def _note_highest(self) -> None:
        for highest, bytes_now in ((self.highest, self.live), (self.highest_uncast, self.live - self.casts)):
            highest[self.gradients] = max(bytes_now, highest.get(self.gradients, 0))

    def _free_cast(self, size: int) -> None:
        self.casts -= size

    def _free(self, entry: list[Any]) -> None:
        if entry[1]:
            self.gradients -= entry[0]
        else:
            self.live -= entry[0]
