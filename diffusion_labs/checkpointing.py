"""Activation checkpointing of blocks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from diffusion_labs import kernels

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
Checkpointing = bool | Contexts
"""Whether blocks are recomputed in the backward pass; or what ``torch.utils.checkpoint`` takes as its ``context_fn``,
such as ``keep_products``, which says what is kept."""

ATEN = torch.ops.aten
PRODUCTS = [
    ATEN.mm.default,
    ATEN.addmm.default,
    ATEN.bmm.default,
    ATEN.baddbmm.default,
    ATEN.convolution.default,
    *kernels.PRODUCTS,
    ATEN._scaled_dot_product_flash_attention.default,
    ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    ATEN._scaled_dot_product_efficient_attention.default,
    ATEN._scaled_dot_product_cudnn_attention.default,
]


def keep_products() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Selective checkpointing: products of matrices, convolutions and attention are kept, and the rest is recomputed.

    Norms, activations, dropout and sums take most of the memory and little of the time (arXiv 2205.05198, section 4).
    """
    contexts: tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
    contexts = create_selective_checkpoint_contexts(PRODUCTS)
    return contexts


def set_checkpointing(model: nn.Module, checkpointing: Checkpointing) -> None:
    """Let the blocks of all networks in a model be recomputed, or not, in train mode; see ``Checkpointing``.

    Raises:
        ValueError: if no module of the model can do so.

    Example:
        >>> network = dit(**DITS["DiT-S/2"])
        >>> set_checkpointing(network, keep_products)
    """
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "checkpointing")]
    if not modules:
        raise ValueError(f"no module of this {type(model).__name__} can recompute its blocks; leave checkpointing out")
    for module in modules:
        module.checkpointing = checkpointing


def call_block(block: nn.Module, *arguments: Any, recompute: Checkpointing) -> Any:
    """``block(*arguments)``.

    To recompute is to keep only its inputs for the backward pass and to compute the rest again there: less memory, one
    more forward pass, the same gradients (arXiv 1604.06174).

    Networks ask for it in train mode only: torch.func, with which adapters guide, cannot pass through a checkpoint.
    """
    if recompute is False:
        return block(*arguments)
    if recompute is True:
        return checkpoint(block, *arguments, use_reentrant=False)
    return checkpoint(block, *arguments, use_reentrant=False, context_fn=partial(recompute))  # torch.compile needs it
