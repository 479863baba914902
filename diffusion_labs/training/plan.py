"""Whether a training fits, and how long it takes, without the hardware."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from diffusion_labs.training.divided_layer import Cut
from diffusion_labs.training.experiment import Experiment, batch_size
from diffusion_labs.training.fake import fake_copy, fake_mode, faked
from diffusion_labs.training.loop import backward, clip_gradients
from diffusion_labs.training.meter import Meter
from diffusion_labs.training.parallelism import blocks_of
from diffusion_labs.training.state import TrainState
from diffusion_labs.training.tensor_parallelism import divide_models, grouped
from diffusion_labs.training.traced_update import Block, Part, Plan, TracedUpdate
from diffusion_labs.training.world import World


def plan_update(
    experiment: Experiment,
    batch: Mapping[str, Any],
    *,
    world_size: int = 1,
    parallelism: Literal["ddp", "fsdp"] = "ddp",
    device: Literal["cuda", "cpu"] = "cuda",
    shards: int | None = None,
    reshard: bool = True,
    tensor_parallel: int = 1,
) -> Plan:
    """What an update of an experiment needs on each of several devices; see ``trace_update``.

    Args:
        experiment: see ``trace_update``.
        batch: of one pass on one device.
        world_size: number of devices.
        parallelism: see ``TrainOptions``.
        device: see ``trace_update``; blocks gather their weights as it computes.
        shards: see ``TrainOptions``.
        reshard: see ``TrainOptions``.
        tensor_parallel: see ``TrainOptions``.

    Example:
        >>> with unallocated():
        ...     network = dl.dit(**dl.DITS["DiT-XL/2"])
        >>> plan = plan_update(Experiment(...), {"x": torch.empty(32, 4, 32, 32)}, world_size=64, parallelism="fsdp")
        >>> plan.memory / 2**30
    """
    world = grouped(World(size=world_size), tensor_parallel, experiment.objective)
    traced = trace_update(experiment, batch, device=device, tensor=world.tensor)
    return traced.on(world_size, parallelism, shards=shards, reshard=reshard, bfloat16=device == "cuda")


def trace_update(
    experiment: Experiment, batch: Mapping[str, Any], *, device: Literal["cuda", "cpu"] = "cuda", tensor: int = 1
) -> TracedUpdate:
    """Make an update as the loop makes it, on tensors without memory, and follow what it needs.

    Nothing is allocated, and nothing of the experiment changes. Not seen are what kernels and the allocator take for
    themselves, CUDA's own memory, and what an objective does in ``after_update``. What depends on values, as the choice
    of ``ExpertDenoisers``, cannot be followed.

    Args:
        experiment: of a recipe, or made by hand; its batches are not read. Build what is large in ``unallocated()``.
        batch: of one pass on one device. Only its shapes and texts count.
        device: ``"cuda"`` computes in bfloat16 where autocast does, ``"cpu"`` in float32.
        tensor: how many devices divide layers, of which this one has a part; see ``World``.
    """
    mode = fake_mode()
    parts = (experiment.objective, experiment.model, experiment.optimizer)
    objective, model, optimizer = fake_copy(parts, experiment.objective, mode)
    objective.train()
    group = PlannedGroup()
    _, partial = divide_models([objective] if tensor > 1 else [], optimizer, tensor, 0, group)
    after_passes = sum(value.nbytes for value in partial)
    passes = min(experiment.accumulate, 2)  # the second is as all others are
    batches = [{name: faked(value, mode) if isinstance(value, Tensor) else value for name, value in batch.items()}]
    meter, precision = Meter(), torch.autocast("cpu", torch.bfloat16, device == "cuda")
    with mode, warnings.catch_warnings(action="ignore"):  # of tensors without memory
        state = TrainState(replace(experiment, objective=objective, model=model, optimizer=optimizer))
        _make_moments(optimizer)
        averaged = state.ema.model
        moments = [value for of_one in optimizer.state.values() for value in of_one.values()]
        moments = [value for value in moments if isinstance(value, Tensor)]
        buffers = [*objective.buffers(), *averaged.buffers()]
        meter.leave_out([*objective.parameters(), *averaged.parameters(), *moments, *buffers])
        meter.leave_out((value for block in blocks_of(objective) for value in block.parameters()), watch_casts=True)
        calls = _follow_calls(objective)
        for parameter in objective.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda value: meter.keep_gradient(value.grad))
        meter.count(batches)
        with meter:
            backward(objective, batches * passes, torch.device("cpu"), precision)
            clip_gradients(optimizer, experiment.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.ema.update(state.model)
    own = {id(parameter) for parameter in objective.parameters()}
    averages = list(averaged.parameters())
    blocks, root = _blocks(objective, calls)
    return TracedUpdate(
        samples=batch_size(batch) * experiment.accumulate,
        accumulate=experiment.accumulate,
        parameters=_parts(objective.parameters()),
        own_average=_parts(value for value in averages if id(value) not in own),
        frozen=_parts(value for value in averages if id(value) in own),
        optimizer=_parts(moments),
        buffers=sum(value.nbytes for value in buffers),
        highest=meter.highest,
        highest_uncast=meter.highest_uncast,
        blocks=blocks,
        root=root,
        flops=meter.flops * experiment.accumulate // passes,
        tensor=tensor,
        summed=after_passes + group.summed * experiment.accumulate // passes,
    )


class PlannedGroup:
    """A group of processes that divide layers, of which this one pretends that there are others.

    Attributes:
        summed: the bytes that have been summed over the group.
    """

    def __init__(self) -> None:
        self.summed = 0

    def sum(self, x: Tensor) -> Tensor:
        """A sum, of the same size as each of its parts."""
        self.summed += x.nbytes
        return x.clone()

    def join(self, part: Tensor, cut: Cut) -> Tensor:
        """A tensor of the size of the whole."""
        size = list(part.shape)
        size[cut.dim] = len(cut.owner)
        return part.new_empty(size)


def _make_moments(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer have what it remembers from the first update on."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _follow_calls(objective: nn.Module) -> dict[nn.Module, int]:
    """How often FSDP2 gathers each block that is called from now on: again in the backward pass, if there is one."""
    calls: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        outputs = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        calls.setdefault(module, 2 if any(value.requires_grad for value in outputs) else 1)

    for block in blocks_of(objective):
        block.register_forward_hook(note)
    return calls


def _blocks(objective: nn.Module, calls: Mapping[nn.Module, int]) -> tuple[list[Block], Block]:
    """The blocks that were called, in their order, and what is in no block."""
    taken: set[int] = set()

    def block_of(module: nn.Module, gathers: int) -> Block:
        own = [value for value in module.parameters() if id(value) not in taken]
        taken.update(id(value) for value in own)
        return Block(_parts(own), _parts(value for value in own if value.requires_grad), gathers)

    found = {module: block_of(module, calls.get(module, 0)) for module in blocks_of(objective)}
    return [found[module] for module in calls], block_of(objective, 1)


def _parts(values: Iterable[Tensor]) -> list[Part]:
    return [Part.of(value) for value in values]
