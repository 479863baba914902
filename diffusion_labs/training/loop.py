"""The training loop."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion_labs.training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from diffusion_labs.training.device import autocast, find_device, to_device
from diffusion_labs.training.experiment import Experiment, batch_size
from diffusion_labs.training.log import RunLog
from diffusion_labs.training.state import TrainState


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
        keep: checkpoints to keep.
    """

    resume: bool = False
    device: str = "cpu"
    log_every: int = 20
    save_every: int = 500
    preview_every: int = 1000
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every", "preview_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")


def train(experiment: Experiment, run_dir: Path, options: TrainOptions) -> TrainState:
    """Train to the experiment's last step, and save the result.

    Args:
        experiment: from a recipe.
        run_dir: folder for checkpoints, metrics and pictures.
        options: see ``TrainOptions``.

    Raises:
        Stopped: on SIGINT or SIGTERM, after the current update is finished and saved.
        CheckpointError: if there is a checkpoint and ``resume`` is off, or it cannot be read.
        FloatingPointError: if the loss is not finite; the checkpoints before it are kept.
    """
    device = find_device(options.device)
    checkpoint_dir = run_dir / "checkpoints"
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    experiment.objective.to(device).train()
    state = TrainState(experiment)

    newest = latest_checkpoint(checkpoint_dir)
    if newest is not None:
        if not options.resume:
            raise CheckpointError(f"{checkpoint_dir} already holds a run; resume it, or choose another folder")
        state.load_state_dict(load_checkpoint(newest))

    with RunLog(run_dir, experiment.steps, state.step) as log, _stop_signals() as stopping:
        losses: list[torch.Tensor] = []
        logged, images = time.perf_counter(), 0
        while state.step < experiment.steps:
            for _ in range(experiment.accumulate):
                batch = to_device(next(state.batches), device)
                with autocast(device):
                    loss = state.objective(batch) / experiment.accumulate
                loss.backward()
                losses.append(loss.detach() * experiment.accumulate)
                images += batch_size(batch)
            norm = _clip_gradients(state.optimizer, experiment.gradient_clip)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.scheduler.step()
            state.step += 1
            state.objective.after_update(state.step)
            state.ema.update(state.model)
            log.advance()

            last = state.step == experiment.steps
            stop = bool(stopping)  # read once: a signal that arrives from here on stops the next step
            save = last or stop or state.step % options.save_every == 0
            if save or state.step % options.log_every == 0:
                now = time.perf_counter()
                scalars: dict[str, float] = {
                    "loss": torch.stack(losses).mean().item(),
                    "gradient_norm": norm.item(),
                    "learning_rate": float(state.scheduler.get_last_lr()[0]),
                    "images_per_second": images / (now - logged),
                    **{name: value.item() for name, value in state.objective.metrics().items()},
                }
                if not all(math.isfinite(value) for value in scalars.values()):
                    raise FloatingPointError(
                        f"loss {scalars['loss']}, gradient norm {scalars['gradient_norm']} at step {state.step}; "
                        "lower the learning rate, or look at the data. Earlier checkpoints are kept"
                    )
                log.scalars(state.step, **scalars)
                losses, images, logged = [], 0, now
            if save:
                save_checkpoint(checkpoint_dir, state.step, state.state_dict(), options.keep)
            if stop and not last:
                raise Stopped(
                    f"stopped at step {state.step} of {experiment.steps}; --resume goes on from there",
                    stopping[0],
                )
            if experiment.preview is not None and (state.step % options.preview_every == 0 or last):
                picture = experiment.preview(state.ema.model, run_dir / "samples" / f"step-{state.step:08d}.png")
                log.picture(state.step, picture)
    return state


def _clip_gradients(optimizer: torch.optim.Optimizer, largest: float) -> torch.Tensor:
    """Clip the norm of the gradient of each group of parameters, and return the norm of all, as it was.

    Groups are networks with losses of their own, an autoencoder and its discriminator: one must not slow the other.
    """
    norms = [torch.nn.utils.clip_grad_norm_(group["params"], largest) for group in optimizer.param_groups]
    return torch.linalg.vector_norm(torch.stack(norms))


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
