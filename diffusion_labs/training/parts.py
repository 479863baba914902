"""Whole tensors for processes that have parts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor, which each process has, that this one keeps of a parameter; all, if that is whole."""
    layout: Any = like
    if not hasattr(like, "full_tensor") or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    part: Tensor = distribute_tensor(value, layout.device_mesh, layout.placements, src_data_rank=None)
    return part.clone()  # else it may be a view of the whole, which could not be let go


def load_whole(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``load_state_dict`` of whole tensors, of which the module may have parts."""
    own = dict(module.named_parameters(remove_duplicate=False))
    module.load_state_dict({name: part_of(value, own[name]) if name in own else value for name, value in state.items()})
