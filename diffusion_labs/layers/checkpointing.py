"""Activation checkpointing of blocks."""

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def call_block(block: nn.Module, *arguments: Any, recompute: bool) -> Any:
    """``block(*arguments)``.

    To recompute is to keep only its inputs for the backward pass and to compute the rest again there: less memory, one
    more forward pass, the same gradients (arXiv 1604.06174).

    Networks ask for it in train mode only: torch.func, with which adapters guide, cannot pass through a checkpoint.
    """
    return checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)
