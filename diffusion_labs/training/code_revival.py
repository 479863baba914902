"""Codes that are not used begin again elsewhere."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed
from torch import Tensor, nn

from diffusion_labs.training.world import is_distributed


class CodeRevival(nn.Module):
    """Replaces the codes of a codebook that were not used for a while by features of the data.

    A code that is nearest to no feature gets no gradient, and stays where it is for ever. After every ``window``
    updates, each code that no batch since the last time used becomes a random feature vector of the latest batch
    (random restarts, as in Jukebox, arXiv 2005.00341, section 3.1). All that it remembers is in buffers.

    Args:
        num_codes: the number of codes.
        code_dim: their channels.
        window: updates.

    Raises:
        ValueError: for a window below 1.
    """

    counts: Tensor
    candidates: Tensor

    def __init__(self, num_codes: int, code_dim: int, *, window: int) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"revive_after ({window}) must be at least 1: the updates for which a dead code is unused")
        self.window = window
        self.register_buffer("counts", torch.zeros(num_codes, dtype=torch.long))
        self.register_buffer("candidates", torch.zeros(num_codes, code_dim))

    @torch.no_grad()
    def observe(self, h: Tensor, counts: Tensor) -> None:
        """Note how often each code was used for features ``[b, c, ...]``, and draw one of these for each code."""
        vectors = h.movedim(1, -1).flatten(0, -2)
        chosen = torch.randint(len(vectors), (len(self.counts),), device=h.device)
        self.candidates.copy_(vectors[chosen])
        self.counts.add_(counts)

    @torch.no_grad()
    def after_update(self, codebook: Tensor, step: int) -> None:
        """Revive the dead codes if a window is over.

        Processes of a distributed run agree: a code lives if one of them used it, which all know after each update, as
        a checkpoint has the counts of one; and the first draws the features.

        Args:
            codebook: ``[num_codes, code_dim]``, changed in place.
            step: the updates that are done.
        """
        if is_distributed():
            torch.distributed.all_reduce(self.counts, torch.distributed.ReduceOp.MAX)
        if step % self.window != 0:
            return
        sharded: AbstractContextManager[None] = nullcontext()
        if is_distributed():
            from torch.distributed.tensor.experimental import implicit_replication

            torch.distributed.broadcast(self.candidates, 0)
            sharded = implicit_replication()  # the buffers are now the same everywhere; the codebook may be in parts
        with sharded:
            codebook.copy_(torch.where(self.counts[:, None] > 0, codebook, self.candidates.to(codebook.dtype)))
        self.counts.zero_()
