"""The training loop."""

import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from diffusion_labs.data.batches import Batch
from diffusion_labs.training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_newest,
    save_checkpoint,
)
from diffusion_labs.training.checkpoint_writer import CheckpointWriter
from diffusion_labs.training.device import autocast, find_device, to_device
from diffusion_labs.training.experiment import Experiment, Preview, batch_size
from diffusion_labs.training.log import RunLog, SilentLog
from diffusion_labs.training.parallelism import Parallelism, chosen, gradients_kept, share, whole
from diffusion_labs.training.state import TrainState, random_state, set_random_state
from diffusion_labs.training.world import World, joined, local_device


class Stopped(Exception):  # noqa: N818 (not an error)
    """Training was asked to stop by a signal; the state of the last update is saved.

    Attributes:
        signal: the number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


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
        timeout: minutes after which a process that waits for another gives up, so that torchrun can start all again.
        keep_every: checkpoints of multiples of this step are kept, too; none if not given.
        failed_saves: checkpoints in a row that may fail to be written, as on a full disk, before the run stops.
        spike_factor: an update is skipped if its loss or gradient norm is this many times as large as lately.
        skipped_updates: updates in a row that may be skipped before the run stops.
    """

    resume: bool = False
    device: str = "cpu"
    log_every: int = 20
    save_every: int = 500
    preview_every: int = 1000
    keep: int = 3
    parallelism: Parallelism = "auto"
    timeout: float = 30.0
    keep_every: int | None = None
    failed_saves: int = 3
    spike_factor: float = 100.0
    skipped_updates: int = 10

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every", "preview_every", "keep", "keep_every", "spike_factor"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        for name in ("failed_saves", "skipped_updates"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 0")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout ({self.timeout}) must be positive and finite")


def train(experiment: Experiment, run_dir: Path, options: TrainOptions) -> TrainState:
    """Train to the experiment's last step, and save the result.

    A batch whose loss or gradient is not finite, or a spike, changes nothing but the count of such batches, see
    ``UpdateGuard``: it is as if the data did not have it. Checkpoints are written while training goes on; one that
    cannot be written is warned of.

    Started by ``torchrun``, each process has its share of every batch. What a batch is, and when a step is done, does
    not depend on how many there are, nor on how they share the model. The first of them writes.

    Args:
        experiment: from a recipe.
        run_dir: folder for checkpoints, metrics and pictures.
        options: see ``TrainOptions``.

    Raises:
        Stopped: on SIGINT or SIGTERM, after the current update is finished and saved.
        CheckpointError: if there is a checkpoint and ``resume`` is off, none can be read, or too many in a row, or the
            last, cannot be written.
        FloatingPointError: if too many updates in a row are skipped; the batches of the last are in the folder
            ``skipped``, and the checkpoints before it are kept.
    """
    with joined(options.device, timeout=options.timeout) as world:
        return _train(experiment, run_dir, options, world)


def _train(experiment: Experiment, run_dir: Path, options: TrainOptions, world: World) -> TrainState:
    device = find_device(local_device(options.device))
    checkpoint_dir = run_dir / "checkpoints"
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    experiment.objective.to(device).train()
    if world.size > 1:
        experiment = replace(experiment, batches=experiment.batches.shared(world.rank, world.size))
        torch.manual_seed(torch.initial_seed() + world.rank)  # of what is not drawn by the key of a sample
    state = TrainState(experiment)

    if latest_checkpoint(checkpoint_dir) is not None and not options.resume:
        raise CheckpointError(f"{checkpoint_dir} already holds a run; resume it, or choose another folder")
    newest = load_newest(checkpoint_dir)
    if newest is not None:
        state.load_state_dict(newest[1], world)
    parallelism = chosen(options.parallelism, state.objective, world, device)
    if world.size > 1 and world.main:
        print(f"{world.size} processes, {parallelism}", file=sys.stderr)
    objective = share(state, parallelism, world)

    log_of = RunLog if world.main else SilentLog
    writer = CheckpointWriter(
        checkpoint_dir, keep=options.keep, keep_every=options.keep_every, failures=options.failed_saves
    )
    with log_of(run_dir, experiment.steps, state.step) as log, writer, _stop_signals() as stopping:
        losses: list[float] = []
        logged, images = time.perf_counter(), 0
        buffers = list(state.objective.buffers())
        before = [buffer.clone() for buffer in buffers]
        while state.step < experiment.steps:
            batches = [next(state.batches) for _ in range(experiment.accumulate)]
            _copy(buffers, before)
            random = random_state()
            loss = world.mean({"loss": backward(objective, batches, device, autocast(device))})["loss"].item()
            norm = clip_gradients(state.optimizer, experiment.gradient_clip).item()
            if not state.guard.accepts(loss, norm, options.spike_factor):
                state.optimizer.zero_grad(set_to_none=True)
                _copy(before, buffers)
                set_random_state(random)
                state.objective.metrics()  # forgotten, as those of the batch are among them
                folder = run_dir / "skipped" if world.size == 1 else run_dir / "skipped" / f"rank-{world.rank}"
                _report_skipped(state, loss, norm, batches, folder, options.skipped_updates)
                continue
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.scheduler.step()
            state.step += 1
            state.objective.after_update(state.step)
            state.ema.update(state.model)
            log.advance()
            losses.append(loss)
            images += world.size * sum(map(batch_size, batches))

            last = state.step == experiment.steps
            stop = world.any(bool(stopping), device)  # read once: what arrives from here on stops the next step
            save = last or stop or state.step % options.save_every == 0
            if save or state.step % options.log_every == 0:
                now = time.perf_counter()
                metrics = world.mean(state.objective.metrics())
                log.scalars(
                    state.step,
                    loss=sum(losses) / len(losses),
                    gradient_norm=norm,
                    learning_rate=float(state.scheduler.get_last_lr()[0]),
                    images_per_second=images / (now - logged),
                    skipped_updates=state.guard.skipped,
                    **{name: value.item() for name, value in metrics.items()},
                )
                losses, images, logged = [], 0, now
            if save:
                content = whole(state.state_dict(world))
                if world.main:
                    writer.save(state.step, content)
                    if last or stop:
                        writer.finish(needed=True)
            if stop and not last:
                raise Stopped(
                    f"stopped at step {state.step} of {experiment.steps}; --resume goes on from there",
                    stopping[0] if stopping else signal.SIGTERM,
                )
            if experiment.preview is not None and (state.step % options.preview_every == 0 or last):
                picture = _preview(state, experiment.preview, run_dir / "samples", world)
                log.picture(state.step, picture)
        world.wait()  # for what the first process writes last
    return state


def _preview(state: TrainState, draw: Preview, folder: Path, world: World) -> Tensor:
    """A picture, which all processes draw, as each may have a part of the model alone; the first one's is kept."""
    with nullcontext(folder) if world.main else TemporaryDirectory() as place:
        return draw(state.ema.model, Path(place) / f"step-{state.step:08d}.png")


def backward(objective: nn.Module, batches: Sequence[Batch], device: torch.device, precision: torch.autocast) -> Tensor:
    """The gradient of the mean loss of some batches, and that loss. Processes exchange gradients after the last."""
    losses = []
    for i, batch in enumerate(batches, 1):
        with gradients_kept(objective) if i < len(batches) else nullcontext():
            with precision:
                loss = objective(to_device(batch, device)) / len(batches)
            loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    for value, place in zip(source, target, strict=True):
        place.copy_(value)


def _report_skipped(
    state: TrainState, loss: float, norm: float, batches: Sequence[Batch], folder: Path, limit: int
) -> None:
    """Warn of a skipped update, or end the run if it is one too many."""
    guard = state.guard
    what = f"the update after step {state.step} is skipped, as its loss is {loss:g} and its gradient norm {norm:g}"
    if guard.in_a_row <= limit:
        warnings.warn(f"{what}; skipped so far: {guard.skipped}", stacklevel=3)
        return
    kept = save_checkpoint(folder, state.step, {"batches": list(batches)}, keep=1)
    raise FloatingPointError(
        f"{what}, like {limit} before it; its batches are in {kept}. Lower the learning rate, or look at the data. "
        "Earlier checkpoints are kept"
    )


def clip_gradients(optimizer: torch.optim.Optimizer, largest: float) -> Tensor:
    """Clip the norm of the gradient of each group of parameters, and return the norm of all, as it was.

    Groups are networks with losses of their own, an autoencoder and its discriminator: one must not slow the other.
    """
    norms = [torch.nn.utils.clip_grad_norm_(group["params"], largest) for group in optimizer.param_groups]
    return torch.linalg.vector_norm(torch.stack(whole(norms)))


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that becomes true when SIGINT or SIGTERM arrives; a second signal acts as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number in numbers:
            signal.signal(number, before[number])
