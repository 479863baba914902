"""The training loop."""

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.checkpointing import set_checkpointing
from diffusion_labs.data.batches import Batch
from diffusion_labs.data.read_ahead import ReadAhead
from diffusion_labs.locking import sole_user
from diffusion_labs.training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    set_aside_later,
    step_of,
)
from diffusion_labs.training.checkpoint_writer import CheckpointWriter
from diffusion_labs.training.device import autocast, find_device, to_device
from diffusion_labs.training.ema_snapshots import SNAPSHOTS, remove_later_snapshots, snapshot_of
from diffusion_labs.training.experiment import Experiment, Preview
from diffusion_labs.training.heartbeat import Heartbeat
from diffusion_labs.training.log import RunLog, SilentLog
from diffusion_labs.training.options import CHECKPOINTING, OptionError, TrainOptions
from diffusion_labs.training.parallelism import (
    chosen,
    compile_blocks,
    gathered,
    gradients_kept,
    share,
    whole,
)
from diffusion_labs.training.resumption import load_together
from diffusion_labs.training.state import TrainState
from diffusion_labs.training.stop_signals import Stopped, stop_signals
from diffusion_labs.training.tensor_parallelism import (
    TensorGroup,
    describe_layers,
    divide_layers,
    grouped,
    norm_of_gradients,
)
from diffusion_labs.training.trackers import TrackedRun, Tracker, Tracking, named_trackers
from diffusion_labs.training.updates import Updates
from diffusion_labs.training.world import World, joined, local_device

OUT_OF_MEMORY = """Resume with --checkpointing full, which computes blocks again, or on more processes, or with \
--parallelism fsdp; or begin a new run with a smaller batch_size and a larger accumulate. `plan` tells what fits"""


def train(
    experiment: Experiment,
    run_dir: Path,
    options: TrainOptions,
    trackers: Sequence[Tracker] = (),
    *,
    name: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> TrainState:
    """Train to the experiment's last step, and save the result.

    A batch whose loss or gradient is not finite, or a spike, changes nothing but the count of such batches, see
    ``UpdateGuard``: it is as if the data did not have it. The host learns of it an update later, see ``Updates``, and
    waits for the device only where something is written. Checkpoints are written while training goes on; one that
    cannot be written is warned of.

    A run that is resumed with more steps goes on as one that has so many from its beginning: its learning rate is that
    of the longer schedule from there on, which is larger than where the shorter one was, and at its end.

    Started by ``torchrun``, each process has its share of every batch. What a batch is, and when a step is done, does
    not depend on how many there are, nor on how they share the model. The first of them writes.

    Args:
        experiment: from a recipe.
        run_dir: folder for checkpoints, metrics and pictures.
        options: see ``TrainOptions``.
        trackers: of the experiment, beside those that the options name.
        name: of the run, for them; that of its folder if ``None``.
        about: plain data about the run, for them.

    Raises:
        Stopped: on SIGINT, SIGTERM, SIGHUP or SIGUSR1, after the current update is finished and saved.
        InUseError: if another process trains in the folder.
        CheckpointError: if there is a checkpoint and ``resume`` is off, none can be read, or too many in a row, or the
            last, cannot be written.
        OptionError: if the processes, or the model, cannot be trained so.
        TrackerError: if a tracker cannot begin.
        FloatingPointError: if too many updates in a row are skipped; the batches of the last are in the folder
            ``skipped``, and the checkpoints before it are kept.
        Exception: of the data, of the objective, or for want of memory; one process has then saved the last update.
    """
    settings = {"model": experiment.description, **(about or {}), "options": asdict(options)}
    run = TrackedRun(name or run_dir.resolve().name, run_dir, json.loads(json.dumps(settings, default=str)))
    tracking = Tracking([*named_trackers(options.track), *trackers], run)
    with joined(options.device, timeout=options.timeout) as world, sole_user(run_dir) if world.main else nullcontext():
        return _train(experiment, run_dir, options, world, tracking)


def _train(
    experiment: Experiment, run_dir: Path, options: TrainOptions, world: World, tracking: Tracking
) -> TrainState:
    device = find_device(local_device(options.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # by which NCCL sends what is no tensor
    checkpoint_dir = run_dir / "checkpoints"
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    experiment.objective.to(device).train()
    world = grouped(world, options.tensor_parallel, experiment.objective)
    if world.data_size > 1:
        experiment = replace(experiment, batches=experiment.batches.shared(world.data_rank, world.data_size))
        torch.manual_seed(torch.initial_seed() + world.data_rank)  # of what is not drawn by the key of a sample
    ahead = (0 if device.type == "cpu" else 2) if options.read_ahead is None else options.read_ahead
    if ahead:
        experiment = replace(experiment, batches=ReadAhead(experiment.batches, ahead))
    snapshot_every = options.ema_snapshot_every
    widths = () if snapshot_every is None else options.ema_sigma_rel
    divided = world.tensor > 1  # from whole tensors; parts are made of them as they are loaded
    state = TrainState(experiment, widths, allocated=divided)

    if world.from_first(latest_checkpoint(checkpoint_dir) is not None) and not options.resume:
        raise CheckpointError(f"{checkpoint_dir} already holds a run; resume it, or choose another folder")
    saved = load_together(checkpoint_dir, world)
    if saved is not None and divided:
        state.load_state_dict(saved, world)
    objective, tensors = _prepared(state, options, world, device)
    state.allocate()
    if saved is not None and not divided:
        state.load_state_dict(saved, world)
    del saved

    log_of = RunLog if world.main else SilentLog
    writer = CheckpointWriter(
        checkpoint_dir, keep=options.keep, keep_every=options.keep_every, failures=options.failed_saves
    )
    snapshots = CheckpointWriter(
        run_dir / SNAPSHOTS, keep=1, keep_every=1, failures=options.failed_saves, thread=writer.thread
    )
    if world.main:
        set_aside_later(checkpoint_dir, state.step)
        remove_later_snapshots(run_dir, state.step)
    heartbeat = Heartbeat(world, options.timeout)

    def due(step: int) -> bool:
        """Whether something happens after an update for which the host must know that it was made."""
        every = [options.save_every, options.log_every]
        every += [] if snapshot_every is None else [snapshot_every]
        every += [] if experiment.preview is None else [options.preview_every]
        return step == experiment.steps or any(step % n == 0 for n in every) or experiment.objective.awaits(step)

    log = log_of(run_dir, experiment.steps, state.step, tracking)
    with log, writer, heartbeat, stop_signals() as stopping:

        def gradient(batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
            """The gradient of all processes, and what they tell each other."""
            heartbeat.beat(state.step + 1)
            loss = backward(objective, batches, device, autocast(options.precision, device))
            asked = torch.full_like(loss, bool(stopping))
            told = world.mean({"loss": loss, "stop": asked})
            tensors.complete_gradients()
            norm = clip_gradients(state.optimizer, experiment.gradient_clip, tensors.gradient_norm)
            return told["loss"], norm, told["stop"] > 0

        updates = Updates(
            state,
            gradient,
            log.advance,
            accumulate=experiment.accumulate,
            spike_factor=options.spike_factor,
            skipped_updates=options.skipped_updates,
            folder=run_dir / "skipped" if world.size == 1 else run_dir / "skipped" / f"rank-{world.rank}",
        )

        def save_whole() -> None:
            """Save the last update when an error has ended the training, of one process: others would wait."""
            try:
                batches = updates.go_back()
                writer.finish()
                newest = latest_checkpoint(checkpoint_dir)
                if batches is not None and state.step > (0 if newest is None else step_of(newest)):
                    writer.save(state.step, {**state.state_dict(), "batches": batches})
                    writer.finish(needed=True)
                    print(f"step {state.step} is saved; --resume goes on from there", file=sys.stderr)
            except Exception as error:  # the one that ended the training is told
                warnings.warn(f"step {state.step} could not be saved: {type(error).__name__}: {error}", stacklevel=2)

        logged = time.perf_counter()
        while state.step < experiment.steps:
            try:
                updates.begin()
            except FloatingPointError:
                raise
            except Exception as error:
                if isinstance(error, torch.OutOfMemoryError):
                    error.add_note(OUT_OF_MEMORY)
                if world.size == 1:
                    save_whole()
                raise
            # read once: what arrives from here on stops the next step; of several processes, when all know of it
            stop = bool(stopping) if world.size == 1 else updates.stop
            if not (stop or due(state.step + 1)) or not updates.know():
                continue

            last = state.step == experiment.steps
            save = last or stop or state.step % options.save_every == 0
            if save or state.step % options.log_every == 0:
                now = time.perf_counter()
                metrics = world.mean(state.objective.metrics())
                loss, images = updates.take_losses()
                log.scalars(
                    state.step,
                    loss=loss,
                    gradient_norm=updates.gradient_norm,
                    learning_rate=float(state.scheduler.get_last_lr()[0]),
                    images_per_second=world.data_size * images / (now - logged),
                    skipped_updates=state.guard.skipped,
                    **{name: value.item() for name, value in metrics.items()},
                )
                logged = now
            if snapshot_every is not None and (last or state.step % snapshot_every == 0):
                snapshots.save(state.step, snapshot_of(state.power_averages), keep=world.main)
            if save:
                if last or stop:
                    snapshots.finish(needed=True)  # before there is a checkpoint, from which it would not come again
                writer.save(state.step, state.state_dict(world), keep=world.main)
                if last or stop:
                    writer.finish(needed=True)
            if stop and not last:
                raise Stopped(
                    f"stopped at step {state.step} of {experiment.steps}; --resume goes on from there",
                    stopping[0] if stopping else signal.SIGTERM,
                )
            if experiment.preview is not None and (state.step % options.preview_every == 0 or last):
                picture = _preview(state, experiment.preview, run_dir / "samples", world)
                if picture is not None:
                    log.picture(state.step, picture)
        world.wait()  # for what the first process writes last
    return state


def _prepared(
    state: TrainState, options: TrainOptions, world: World, device: torch.device
) -> tuple[nn.Module, TensorGroup]:
    """The objective of a state, with checkpoints, divided, compiled and shared as the options say."""
    if options.checkpointing is not None:
        try:
            set_checkpointing(state.objective, CHECKPOINTING[options.checkpointing])
        except ValueError as error:
            raise OptionError(str(error)) from error
    if options.tensor_parallel > 1 and world.main:
        print(describe_layers(state.objective, options.tensor_parallel), file=sys.stderr)
    tensors = divide_layers(state, world, timeout=options.timeout)
    sharing = chosen(options, state, world, device)
    if world.size > 1 and world.main:
        print(sharing.describe(world), file=sys.stderr)
    if options.compile:
        compile_blocks(state.objective)
    return share(state, sharing, world, device, tensors.peers), tensors


def _preview(state: TrainState, draw: Preview, folder: Path, world: World) -> Tensor | None:
    """A picture, which all processes draw, as each may have a part of the model alone; the first one's is kept.

    ``None`` if it cannot be written, which is warned of.
    """
    folders = nullcontext(folder) if world.main else TemporaryDirectory()
    with folders as place, state.ema.as_trained(state.model) as averaged, gathered(averaged) as model:
        path = Path(place) / f"step-{state.step:08d}.png"
        try:
            return draw(model, path)
        except OSError as error:
            path.unlink(missing_ok=True)
            warnings.warn(f"{path} cannot be written ({error}); training goes on without it", stacklevel=3)
            return None


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


def clip_gradients(
    optimizer: torch.optim.Optimizer,
    largest: float,
    gradient_norm: Callable[[Sequence[Tensor]], Tensor] = norm_of_gradients,
) -> Tensor:
    """Clip the norm of the gradient of each group of parameters, and return the norm of all, as it was.

    Groups are networks with losses of their own, an autoencoder and its discriminator: one must not slow the other.

    Args:
        optimizer: of the parameters.
        largest: norm of a group.
        gradient_norm: that of some parameters, of all processes.
    """
    norms = [gradient_norm(group["params"]) for group in optimizer.param_groups]
    for group, norm in zip(optimizer.param_groups, norms, strict=True):
        torch.nn.utils.clip_grads_with_norm_(group["params"], largest, norm)
    return torch.linalg.vector_norm(torch.stack(whole(norms)))
