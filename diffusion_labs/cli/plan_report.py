"""What ``diffusion-labs plan`` tells: whether the training of a recipe fits, and how long it takes."""

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from diffusion_labs.cli import UserError
from diffusion_labs.cli.mistakes import MISTAKES
from diffusion_labs.recipes.planning import trace_recipe
from diffusion_labs.training import Plan, TracedUpdate
from diffusion_labs.training.options import CHECKPOINTING, Parallelism, RecomputedBlocks
from diffusion_labs.training.parallelism import COPIES, by_size

GIB = 2**30


@dataclass(frozen=True)
class PlanOptions:
    """What is planned for.

    Attributes:
        world_size: number of devices, which share each batch.
        memory: of each of them, in GiB; leave some for what is not counted, as CUDA itself and its allocator.
        parallelism: how they share the model, as for train: "auto" goes by its size and the memory.
        shards: as for train.
        reshard: as for train.
        tensor_parallel: as for train.
        checkpointing: as for train.
        ema_sigma_rel: as for train, of power-function averages; none if not given.
        device: "cuda" computes in bfloat16 where autocast does, and gathers weights so, "cpu" in float32.
        peak_tflops: of a device, in TFLOP/s, by its data sheet; for the time of an update.
        bandwidth_gb_s: what a device can send, while it receives as much, in GB/s; for the time of an update.
        efficiency: share of the peak that is reached; it stands for all that is no matrix product or convolution.
        json: write JSON, in bytes and FLOP.
    """

    world_size: int = 1
    memory: float = 80.0
    parallelism: Parallelism = "auto"
    shards: int | None = None
    reshard: bool = True
    tensor_parallel: int = 1
    checkpointing: RecomputedBlocks | None = None
    ema_sigma_rel: tuple[float, ...] = ()
    device: Literal["cuda", "cpu"] = "cuda"
    peak_tflops: float | None = None
    bandwidth_gb_s: float | None = None
    efficiency: float = 0.4
    json: bool = False

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise ValueError(f"world_size ({self.world_size}) must be at least 1")
        if self.tensor_parallel < 1:
            raise ValueError(f"tensor_parallel ({self.tensor_parallel}) must be at least 1")
        if self.shards is not None and (self.shards < 1 or self.world_size % self.shards):
            raise ValueError(f"shards ({self.shards}) must divide world_size ({self.world_size})")
        for name in ("memory", "peak_tflops", "bandwidth_gb_s", "efficiency"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} ({value}) must be positive and finite")
        if self.efficiency > 1:
            raise ValueError(f"efficiency ({self.efficiency}) must be at most 1: it is a share of the peak")
        if self.peak_tflops is None and self.bandwidth_gb_s is not None:
            raise ValueError("bandwidth_gb_s is for the time of an update, which needs peak_tflops, too; give both")
        if self.world_size > 1 and self.peak_tflops is not None and self.bandwidth_gb_s is None:
            raise ValueError("the time of an update on several devices needs bandwidth_gb_s, too; give both")

    def seconds(self, plan: Plan) -> tuple[float, float] | None:
        """Least and most time of an update; ``None`` if no peak is given."""
        if self.peak_tflops is None:
            return None
        return plan.seconds(self.peak_tflops * 1e12, (self.bandwidth_gb_s or math.inf) * 1e9, self.efficiency)


def plan(name: str, chosen: dict[str, Any]) -> bool:
    """Plan all stages of a recipe, with all options in one dict, print the plans, and return whether all fit."""
    try:
        options = PlanOptions(**{option.name: chosen.pop(option.name) for option in fields(PlanOptions)})
        recomputed = None if options.checkpointing is None else CHECKPOINTING[options.checkpointing]
        traced = trace_recipe(
            name,
            chosen,
            world_size=options.world_size,
            device=options.device,
            checkpointing=recomputed,
            tensor_parallel=options.tensor_parallel,
        )
    except MISTAKES as error:
        raise UserError(str(error)) from error
    plans = {stage: shared(update, options, parallelism(update, options)) for stage, update in traced.items()}
    if options.json:
        print(json.dumps({stage or name: as_data(plans[stage], options) for stage in plans}, indent=2))
    else:
        print("\n\n".join(report(stage or name, traced[stage], plans[stage], options) for stage in plans))
    return all(fits(found, options) for found in plans.values())


def parallelism(update: TracedUpdate, options: PlanOptions) -> Literal["ddp", "fsdp"]:
    """The one that was asked for, or that ``train`` would choose."""
    if options.parallelism != "auto":
        return options.parallelism
    if options.shards is not None:
        return "fsdp"
    weights = sum(part.bytes for part in update.parameters)
    return by_size(weights, options.memory * GIB, copies=COPIES + len(options.ema_sigma_rel))


def shared(update: TracedUpdate, options: PlanOptions, parallelism: Literal["ddp", "fsdp"]) -> Plan:
    """The plan of an update on the devices of the options."""
    return update.on(
        options.world_size,
        parallelism,
        shards=options.shards,
        reshard=options.reshard,
        bfloat16=options.device == "cuda",
        averages=1 + len(options.ema_sigma_rel),
    )


def fits(plan: Plan, options: PlanOptions) -> bool:
    """Whether a plan fits into the memory of a device."""
    return plan.memory <= options.memory * GIB


def as_data(plan: Plan, options: PlanOptions) -> dict[str, Any]:
    """A plan as plain data."""
    return {**asdict(plan), "memory": plan.memory, "fits": fits(plan, options), "seconds": options.seconds(plan)}


def report(title: str, update: TracedUpdate, plan: Plan, options: PlanOptions) -> str:
    """A plan as a table, and whether it fits."""
    parts = f" in {plan.shards} parts" if 1 < plan.shards < plan.world_size else ""
    parts += f", in groups of {plan.tensor} that divide layers" if plan.tensor > 1 else ""
    how = f"{plan.world_size} devices by {plan.parallelism}{parts}, each with"
    how = how if plan.world_size > 1 else "one device, with"
    rows = {
        "parameters": plan.parameters,
        "optimizer": plan.optimizer,
        "averaged weights": plan.average,
        "buffers": plan.buffers,
        "gradients": plan.gradients,
        "exchange": plan.exchange,
        "activations": plan.activations,
        "all": plan.memory,
    }
    lines = [
        f"{title}: {how} {plan.samples} samples an update",
        "per device, at the fullest moment of an update, in GiB:",
        *(f"  {name:18}{size / GIB:10.3f}" for name, size in rows.items()),
    ]
    left = options.memory - plan.memory / GIB
    if left >= 0:
        lines.append(f"fits: {left:.3f} of {options.memory:g} GiB are left")
    else:
        lines.append(f"does not fit: {-left:.3f} GiB too much for {options.memory:g} GiB")
        lines.append(advice(update, plan, options))
    lines.append(f"computes {plan.flops / 1e12:.4g} TFLOP, sends {plan.sent / 1e9:.4g} GB, per device and update")
    seconds = options.seconds(plan)
    if seconds is not None:
        lines.append(
            f"takes {seconds[0]:.4g} s an update if all exchange is hidden behind computation, {seconds[1]:.4g} s if "
            f"none is, at {options.efficiency:.0%} of the peak"
        )
    return "\n".join(lines)


def advice(update: TracedUpdate, plan: Plan, options: PlanOptions) -> str:
    """What to change for a plan that does not fit."""
    sharded = shared(update, options, "fsdp")
    if plan.parallelism == "ddp" and fits(sharded, options):
        return f"With --parallelism fsdp it needs {sharded.memory / GIB:.3f} GiB, and fits"
    least = min(plan, sharded, key=lambda one: one.memory)
    room = options.memory * GIB - (least.memory - least.activations)
    samples = math.floor(room / max(1, least.activations / update.samples))
    if samples >= 1:
        way = "" if least is plan else "--parallelism fsdp and "
        return (
            f"Try {way}about {samples} samples on a device instead of {plan.samples} (a smaller batch or more "
            "devices), or recompute activations (--checkpointing full)"
        )
    return (
        f"Without activations it needs {(least.memory - least.activations) / GIB:.3f} GiB: take more devices with "
        "--parallelism fsdp, or a smaller model"
    )
