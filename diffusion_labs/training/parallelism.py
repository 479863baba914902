"""How the processes of a run share a model."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from diffusion_labs.training.state import TrainState
from diffusion_labs.training.world import World

Parallelism = Literal["auto", "ddp", "fsdp"]
COPIES = 5  # of the parameters: they, their gradients, two moments of Adam, their average
SHARE = 0.5  # of a device's memory that these may take; activations need the rest


def chosen(parallelism: Parallelism, objective: nn.Module, world: World, device: torch.device) -> Parallelism:
    """DDP or FSDP2: what was asked for, or by the size of the model.

    It is FSDP2 where weights, gradients, moments and average, five copies of all, take more than half of a GPU.
    """
    if parallelism != "auto":
        return parallelism
    if world.size == 1 or device.type != "cuda":
        return "ddp"
    weights = sum(value.nbytes for value in objective.parameters())
    return by_size(weights, torch.cuda.get_device_properties(device).total_memory)


def by_size(weights: int, memory: float) -> Literal["ddp", "fsdp"]:
    """DDP or FSDP2, by the bytes of the weights and of a device's memory."""
    return "fsdp" if COPIES * weights > SHARE * memory else "ddp"


def share(state: TrainState, parallelism: Parallelism, world: World) -> nn.Module:
    """Share the model of a state between the processes, and return what is called in place of its objective.

    With ``"ddp"`` each process has all of it, and gradients are averaged (``DistributedDataParallel``). With ``"fsdp"``
    weights, gradients, moments and the average are in parts (FSDP2, ``fully_shard``): each block, an entry of a
    ``ModuleList``, is gathered where it is needed.
    """
    if world.size == 1:
        return state.objective
    if parallelism == "ddp":
        return nn.parallel.DistributedDataParallel(state.objective)
    before = dict(state.objective.named_parameters())
    for model in (state.objective, state.ema.model):
        _shard(model)
    after = dict(state.objective.named_parameters())
    _point_to(state.optimizer, {before[name]: after[name] for name in before})
    return state.objective


def gradients_kept(objective: nn.Module) -> AbstractContextManager[None]:
    """While it is open, backward passes add to gradients, and processes do not exchange them."""
    if isinstance(objective, nn.parallel.DistributedDataParallel):
        return objective.no_sync()
    if hasattr(objective, "set_requires_gradient_sync"):
        return _unsynchronised(objective)
    return nullcontext()


@contextmanager
def _unsynchronised(objective: Any) -> Iterator[None]:
    objective.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        objective.set_requires_gradient_sync(True)


def whole(value: Any) -> Any:
    """Nested data with the tensors that are in parts gathered, which is an exchange between the processes."""
    return tree_map(lambda part: part.full_tensor() if hasattr(part, "full_tensor") else part, value)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The modules that FSDP2 gathers one after the other: entries of ``ModuleList``s, the inner ones first."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [block for blocks in reversed(lists) for block in blocks]


def _shard(model: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard  # 4 s

    for module in [*blocks_of(model), model]:
        fully_shard(module)


def _point_to(optimizer: torch.optim.Optimizer, parameters: Mapping[Tensor, Any]) -> None:
    """Let an optimizer have other parameters in place of its own, and its moments in the same parts."""
    from torch.distributed.tensor import distribute_tensor

    state = dict(optimizer.state)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["params"] = [parameters[value] for value in group["params"]]
    for value, moments in state.items():
        new = parameters[value]
        optimizer.state[new] = {
            name: distribute_tensor(moment, new.device_mesh, new.placements) if moment.shape == value.shape else moment
            for name, moment in moments.items()
        }
