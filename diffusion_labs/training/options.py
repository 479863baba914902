"""How a run is carried out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diffusion_labs.checkpointing import Checkpointing, keep_products
from diffusion_labs.training.device import Precision
from diffusion_labs.training.power_profile import gamma_of
from diffusion_labs.training.trackers import check_names

Parallelism = Literal["auto", "ddp", "fsdp"]
RecomputedBlocks = Literal["none", "selective", "full"]
CHECKPOINTING: Mapping[RecomputedBlocks, Checkpointing] = {"none": False, "selective": keep_products, "full": True}


class OptionError(ValueError):
    """Options that do not fit the run."""


@dataclass(frozen=True)
class TrainOptions:
    """How a run is carried out; what is trained is the recipe's.

    Attributes:
        resume: go on from the newest checkpoint of the run's folder, if there is one.
        device: where to train.
        log_every: updates between lines of the log.
        save_every: updates between checkpoints.
        preview_every: updates between pictures.
        keep: newest checkpoints to keep.
        parallelism: how several processes share the model: each has all of it ("ddp"), or a part ("fsdp"); by its size
            if "auto".
        shards: into how many parts "fsdp" cuts the model: with fewer than processes, each group of so many has a copy.
        reshard: whether "fsdp" gives the weights of a block back after its forward pass: less memory, more traffic.
        tensor_parallel: how many processes compute each batch together, with some heads and inner channels of every
            Transformer block and attention each.
        precision: of products: "auto" is bfloat16 on GPUs that compute it fast, else float32.
        checkpointing: whether blocks are computed again in the backward pass, for less memory: all ("full"), or what is
            computed fast ("selective"); as the recipe builds its networks if not given.
        compile: compile each block.
        timeout: minutes after which a process that waits for another gives up, so that torchrun can start all again.
        keep_every: checkpoints of multiples of this step are kept, too; none if not given.
        failed_saves: checkpoints in a row that may fail to be written, as on a full disk, before the run stops.
        spike_factor: an update is skipped if its loss or gradient norm is this many times as large as lately.
        skipped_updates: updates in a row that may be skipped before the run stops.
        ema_snapshot_every: updates between snapshots of power-function averages, from which an average of any width can
            be made after training (`sample --sigma-rel`). Each is a copy of the weights; none are tracked if not given.
        ema_sigma_rel: relative widths of these averages.
        read_ahead: batches that a thread reads ahead, so that the device does not wait for them; 2 on GPUs, and none on
            a CPU, which has other work then, if not given.
        track: experiment trackers to send scalars and pictures to, of wandb, trackio and mlflow.
    """

    resume: bool = False
    device: str = "cpu"
    log_every: int = 20
    save_every: int = 500
    preview_every: int = 1000
    keep: int = 3
    parallelism: Parallelism = "auto"
    shards: int | None = None
    reshard: bool = True
    tensor_parallel: int = 1
    precision: Precision = "auto"
    checkpointing: RecomputedBlocks | None = None
    compile: bool = False
    timeout: float = 30.0
    keep_every: int | None = None
    failed_saves: int = 3
    spike_factor: float = 100.0
    skipped_updates: int = 10
    ema_snapshot_every: int | None = None
    ema_sigma_rel: tuple[float, ...] = (0.05, 0.1)
    read_ahead: int | None = None
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = ("log_every", "save_every", "preview_every", "keep", "keep_every", "shards", "ema_snapshot_every")
        for name in (*counts, "spike_factor", "tensor_parallel"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        for name in ("failed_saves", "skipped_updates", "read_ahead"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 0")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout ({self.timeout}) must be positive and finite")
        if not self.ema_sigma_rel or len(set(self.ema_sigma_rel)) < len(self.ema_sigma_rel):
            raise ValueError(f"ema_sigma_rel ({self.ema_sigma_rel}) must be one width or several that differ")
        for width in self.ema_sigma_rel:
            gamma_of(width)
        check_names(self.track)
