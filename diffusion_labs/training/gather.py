"""What the processes of a distributed run know together."""

from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from diffusion_labs.training.world import is_distributed


def gathered(value: Shaped[Tensor, "b *d"], group: Any = None) -> Shaped[Tensor, "n *d"]:
    """The rows of all processes in the order of their ranks, with gradients to each; those of one process alone.

    Each process gives as many rows. The gradient of a process's rows is the sum of those that all processes have, so
    ``DistributedDataParallel`` and FSDP2, which average over them, see that of the mean of the losses.

    Args:
        value: the rows of this one.
        group: the processes; all if ``None``.
    """
    if not is_distributed():
        return value
    from torch.distributed._functional_collectives import all_gather_single_autograd

    group = torch.distributed.group.WORLD if group is None else group
    rows: Tensor = all_gather_single_autograd(value.contiguous(), 0, group)
    return rows


def padded_alike(ids: Shaped[Tensor, "b n"], padding: int = -1) -> Shaped[Tensor, "b m"]:
    """Rows as long as the longest of all processes."""
    if not is_distributed():
        return ids
    length = torch.tensor(ids.shape[1], device=ids.device)
    torch.distributed.all_reduce(length, torch.distributed.ReduceOp.MAX)
    return F.pad(ids, (0, int(length) - ids.shape[1]), value=padding)
