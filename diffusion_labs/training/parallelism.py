"""How the processes of a run share a model."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from diffusion_labs.training.device import in_bfloat16
from diffusion_labs.training.options import OptionError, TrainOptions
from diffusion_labs.training.state import TrainState
from diffusion_labs.training.world import World

COPIES = 5  # of the parameters: they, their gradients, two moments of Adam, their average; and power-function averages
SHARE = 0.5  # of a device's memory that these may take; activations need the rest


@dataclass(frozen=True)
class Sharing:
    """What each process has of a model.

    Attributes:
        parallelism: all of it ("ddp"), or a part ("fsdp").
        shards: how many parts there are: all processes together hold one copy of the model, or each so many of them.
        reshard: whether the weights of a block are given back after its forward pass, and gathered again for its
            backward pass.
        bfloat16: whether blocks gather their weights in bfloat16.
    """

    parallelism: Literal["ddp", "fsdp"]
    shards: int
    reshard: bool = True
    bfloat16: bool = False

    def describe(self, world: World) -> str:
        """What is printed."""
        who, each = f"{world.size} processes", "each"
        if world.data_size == 1:
            return f"{who} that divide layers"
        if world.tensor > 1:
            who, each = f"{who} in {world.data_size} groups that divide layers", "each group"
        if self.parallelism == "ddp":
            return f"{who}, ddp: {each} has the whole model"
        copies = world.data_size // self.shards
        more = f", of which there are {copies} copies" if copies > 1 else ""
        kept = "" if self.reshard else "; gathered weights stay until the backward pass"
        return f"{who}, fsdp: {each} has 1/{self.shards} of the model{more}{kept}"


def by_size(weights: int, memory: float, *, copies: int = COPIES) -> Literal["ddp", "fsdp"]:
    """DDP or FSDP2, by the bytes of the weights, of which there are copies, and of a device's memory."""
    return "fsdp" if copies * weights > SHARE * memory else "ddp"


def chosen(options: TrainOptions, state: TrainState, world: World, device: torch.device) -> Sharing:
    """What the options ask for, or DDP or FSDP2 by the size of the model.

    It is FSDP2 where weights, gradients, moments and averages, five copies or more, take more than half of a GPU.

    Raises:
        OptionError: if the processes cannot be divided into groups of ``shards``.
    """
    if options.shards is not None and world.data_size % options.shards:
        each = f" x tensor_parallel ({world.tensor})" if world.tensor > 1 else ""
        raise OptionError(f"shards ({options.shards}){each} must divide the number of processes ({world.size})")
    parallelism = options.parallelism
    if parallelism == "auto" and options.shards is not None:
        parallelism = "fsdp"
    elif parallelism == "auto":
        weights = sum(value.nbytes for value in state.objective.parameters())
        one = world.data_size == 1 or device.type != "cuda"
        memory = math.inf if one else torch.cuda.get_device_properties(device).total_memory
        parallelism = by_size(weights, memory, copies=COPIES + len(state.power_averages))
    return Sharing(
        parallelism, options.shards or world.data_size, options.reshard, in_bfloat16(options.precision, device)
    )


def share(state: TrainState, sharing: Sharing, world: World, device: torch.device, peers: Any = None) -> nn.Module:
    """Share the model of a state between the processes, and return what is called in place of its objective.

    With ``"ddp"`` each process has all of it, and gradients are averaged (``DistributedDataParallel``). With ``"fsdp"``
    weights, gradients, moments and averages are in parts (FSDP2, ``fully_shard``): each block, an entry of a
    ``ModuleList``, is gathered where it is needed. With fewer parts than processes, groups of processes hold a copy
    each (hybrid sharding): only gradients travel between groups, so a group belongs on one machine.

    Args:
        state: whose model has been divided, where processes compute batches together.
        sharing: how.
        world: the processes.
        device: of this one.
        peers: those with the same part of divided layers; all if not given.
    """
    if world.data_size == 1:
        return state.objective
    if sharing.parallelism == "ddp":
        whole_model = nn.parallel.DistributedDataParallel(state.objective, process_group=peers)
        whole_model.broadcast_buffers = False  # as with FSDP2: they are what each process has counted of its batches
        return whole_model
    before = dict(state.objective.named_parameters())
    shard(state.objective, sharing, world, device)
    for average in (state.ema, *state.power_averages):
        shard(average.model, replace(sharing, bfloat16=False), world, device, calls_in=_low_precision(state.model))
    after = dict(state.objective.named_parameters())
    _point_to(state.optimizer, {before[name]: after[name] for name in before})
    return state.objective


def compile_blocks(model: nn.Module, **options: Any) -> None:
    """Compile each block alone: equal ones once, in seconds, where the whole of a deep network takes minutes.

    Args:
        model: with networks whose blocks are entries of a ``ModuleList``.
        **options: see ``torch.compile``.
    """
    blocks = blocks_of(model)
    for block in blocks:
        block.compile(**options, recompile_limit=len(blocks) + 8)  # those of a U-Net are all different


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of the networks in a model, entries of a ``ModuleList``, with inner ones first."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [block for blocks in reversed(lists) for block in blocks]


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


@contextmanager
def gathered(model: Any) -> Iterator[Any]:
    """A model of which everything but its blocks is whole, for other methods than ``forward``."""
    parts = hasattr(model, "unshard")
    if parts:
        model.unshard()
    try:
        yield model
    finally:
        if parts:
            model.reshard()


def whole(value: Any) -> Any:
    """Nested data with the tensors that are in parts gathered, which is an exchange between the processes."""
    return tree_map(lambda part: part.full_tensor() if hasattr(part, "full_tensor") else part, value)


def shard(
    model: nn.Module, sharing: Sharing, world: World, device: torch.device, *, calls_in: torch.dtype | None = None
) -> None:
    """Let this process keep its part of each block of a model, and of the rest (FSDP2, ``fully_shard``).

    Args:
        model: that is shared.
        sharing: how.
        world: the processes.
        device: of this one.
        calls_in: the data type to which weights are cast as they are gathered; their own if ``None``.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # 4 s

    copies = world.data_size // sharing.shards
    sizes = {"copy": copies, "part": sharing.shards, "tensor": world.tensor}
    names = tuple(name for name, size in sizes.items() if size > 1 or name == "part")
    whole_mesh = init_device_mesh(device.type, tuple(sizes[name] for name in names), mesh_dim_names=names)
    mesh = whole_mesh["copy", "part"] if copies > 1 else whole_mesh["part"]
    # Not for the rest of the model: it embeds times, which bfloat16 cannot tell from each other
    own = MixedPrecisionPolicy(calls_in, cast_forward_inputs=calls_in is None)
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if sharing.bfloat16 else own
    how: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": None if sharing.reshard else False,  # None: all but the root, needed next
        "ignored_params": _replicate_scalars(model, mesh, world),
    }
    for block in blocks_of(model):
        fully_shard(block, mp_policy=half, **how)
    fully_shard(model, mp_policy=own, **how)


def _low_precision(model: nn.Module) -> torch.dtype | None:
    """The data type of the trained weights of a model, where an average is more precise; one for all of them."""
    dtypes = {value.dtype for value in model.parameters() if value.requires_grad}
    return dtypes.pop() if dtypes in ({torch.bfloat16}, {torch.float16}) else None


def _replicate_scalars(model: nn.Module, mesh: Any, world: World) -> set[nn.Parameter]:
    """Parameters without a dimension, such as CLIP's scale, which cannot be cut: each process has all of them.

    They become tensors of the mesh, as all other parameters, so that an optimizer can treat them alike.
    """
    from torch.distributed.tensor import Replicate, distribute_tensor

    def average(parameter: Tensor) -> None:
        gradient: Any = parameter.grad
        torch.distributed.all_reduce(gradient.to_local().div_(world.size))

    scalars = set()
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if value.ndim == 0:
                shared = distribute_tensor(value.detach(), mesh, [Replicate()] * mesh.ndim)
                parameter = nn.Parameter(shared, value.requires_grad)
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(average)
                setattr(module, name, parameter)
                scalars.add(parameter)
    return scalars


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
