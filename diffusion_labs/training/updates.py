"""Updates of the weights, of which the host learns later whether the device made them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.data.batches import Batch
from diffusion_labs.training.checkpoint import CheckpointError, save_checkpoint
from diffusion_labs.training.experiment import batch_size
from diffusion_labs.training.state import TrainState, random_state, set_random_state

Gradient = Callable[[Sequence[Batch]], tuple[Tensor, Tensor, Tensor]]


class Told:
    """Numbers on their way from a device: to read them is to wait for them, not for what the device does after them."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.to("cpu", non_blocking=True)
        self.arrived = None
        if values.device.type != "cpu":
            self.arrived = torch.Event(values.device)
            self.arrived.record()

    def read(self) -> list[float]:
        """The numbers."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values: list[float] = self.values.tolist()
        return values


@dataclass
class Place:
    """Where a run is between updates, beside its weights.

    Attributes:
        batches: the state of the data.
        random: the state of the random numbers.
        buffers: those of the objective.
    """

    batches: Any
    random: dict[str, Any]
    buffers: list[Tensor]


@dataclass
class Update:
    """An update that is on the device.

    Attributes:
        batches: what it is made of.
        random: the state of the random numbers before it.
        buffers: those of the objective, before it.
        told: whether it is refused, its loss, its gradient norm, and whether a process was asked to stop.
    """

    batches: list[Batch]
    random: dict[str, Any]
    buffers: list[Tensor]
    told: Told


class Updates:
    """Makes the updates of a run, one at a time, such that neither device nor host waits for the other.

    The device decides whether an update is made (``UpdateGuard``), and leaves weights and optimiser as they are if not.
    The host reads the decision when it has sent off the gradient of the next batch, so that the device has something to
    do. Where an update turns out to be skipped, random numbers and buffers go back to where they were before it, that
    gradient is thrown away, and its batch begins again: it is as if the data did not have the bad one.

    This is so for optimisers that take a decision from the device, those with ``fused=True``, from their second update
    on; before others the host waits.

    Args:
        state: of the run, of the last update of which the host knows.
        gradient: computes the gradients of an update; the loss, the norm, and whether a process was asked to stop.
        made: told of every update that was made, by its number.
        accumulate: batches in an update.
        spike_factor: see ``TrainOptions``.
        skipped_updates: see ``TrainOptions``.
        folder: for the batches of the last update, if it is one too many that is skipped.

    Attributes:
        losses: of the updates since ``take_losses``.
        gradient_norm: of the last.
        samples: of this process, of the updates since ``take_losses``.
        stop: whether a process was asked to stop.
        place: where the run was before the gradient that is being computed, ``None`` after it.
    """

    def __init__(
        self,
        state: TrainState,
        gradient: Gradient,
        made: Callable[[int], None],
        *,
        accumulate: int,
        spike_factor: float,
        skipped_updates: int,
        folder: Path,
    ) -> None:
        self.state = state
        self.gradient = gradient
        self.made = made
        self.accumulate = accumulate
        self.spike_factor = spike_factor
        self.skipped_updates = skipped_updates
        self.folder = folder
        self.unknown: Update | None = None
        self.place: Place | None = None
        self.losses: list[float] = []
        self.gradient_norm = float("nan")
        self.samples = 0
        self.stop = False

    def begin(self) -> None:
        """Send off an update, after which ``know`` may be called; first learn about the one before."""
        position = self.state.batches.state_dict()
        self.place = self._place(position)
        batches = [next(self.state.batches) for _ in range(self.accumulate)]
        while True:
            random, buffers = random_state(self.state.device), self.place.buffers
            loss, norm, stop = self.gradient(batches)
            if self.unknown is None or self.know():
                break
            self.place = self._place(position)
        self.place = None

        optimizer, objective, step = self.state.optimizer, self.state.objective, self.state.step + 1
        refused = self.state.guard.refuses(loss, norm, self.spike_factor)
        step_unless(refused, optimizer)
        optimizer.zero_grad(set_to_none=True)
        if not objective.awaits(step):
            objective.after_update(step)
        told = Told(torch.stack([value.to(loss.dtype) for value in (refused, loss, norm, stop)]))
        self.unknown = Update(batches, random, buffers, told)

    def know(self) -> bool:
        """Learn about the update that was sent off: whether it was made.

        Raises:
            FloatingPointError: if too many in a row were not.
        """
        update, self.unknown = self.unknown, None
        assert update is not None
        refused, loss, norm, stop = update.told.read()
        self.stop = self.stop or bool(stop)
        state = self.state
        state.guard.count(bool(refused))
        if refused:
            self._undo(update)
            self._report(update, loss, norm)
            return False
        state.step += 1
        state.scheduler.step()
        if state.objective.awaits(state.step):
            state.objective.after_update(state.step)
        state.update_averages()
        self.losses.append(loss)
        self.gradient_norm = norm
        self.samples += sum(map(batch_size, update.batches))
        self.made(state.step)
        return True

    def go_back(self) -> Any:
        """After an error in ``begin``: go back to the last update; the state of the data then, ``None`` if impossible.

        It is possible where the error came with the data or the gradient, and not with the change of the weights.
        """
        place, self.place = self.place, None
        if place is None:
            return None
        self.state.optimizer.zero_grad(set_to_none=True)
        self._restore(place.random, place.buffers)
        if self.unknown is not None:
            self.know()
        return place.batches

    def take_losses(self) -> tuple[float, int]:
        """The mean loss, and the samples, since the last call."""
        taken = sum(self.losses) / len(self.losses), self.samples
        self.losses, self.samples = [], 0
        return taken

    def _undo(self, update: Update) -> None:
        """All but weights and optimiser, which the update has left as they were."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self._restore(update.random, update.buffers)
        self.state.objective.metrics()  # forgotten, as those of the batch are among them

    def _place(self, position: Any) -> Place:
        """Where the run is now, with a copy of the buffers; the data are where they were."""
        buffers = [buffer.clone() for buffer in self.state.objective.buffers()]
        return Place(position, random_state(self.state.device), buffers)

    def _restore(self, random: dict[str, Any], buffers: list[Tensor]) -> None:
        for value, buffer in zip(buffers, self.state.objective.buffers(), strict=True):
            buffer.copy_(value)
        set_random_state(random, self.state.device)

    def _report(self, update: Update, loss: float, norm: float) -> None:
        """Warn of a skipped update, or end the run if it is one too many."""
        guard, step = self.state.guard, self.state.step
        what = f"the update after step {step} is skipped, as its loss is {loss:g} and its gradient norm {norm:g}"
        if guard.in_a_row <= self.skipped_updates:
            warnings.warn(f"{what}; skipped so far: {guard.skipped}", stacklevel=4)
            return
        try:
            kept = save_checkpoint(self.folder, step, {"batches": holdable(update.batches)}, keep=1)
            where = f"its batches are in {kept}"
        except (CheckpointError, ValueError) as error:
            where = f"its batches are lost: {error}"
        raise FloatingPointError(
            f"{what}, like {self.skipped_updates} before it; {where}. Lower the learning rate, or look at the data. "
            "Earlier checkpoints are kept"
        )


def holdable(value: Any) -> Any:
    """A batch with what a checkpoint cannot hold, such as paths, as text."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): holdable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [holdable(item) for item in value]
    return value if value is None or isinstance(value, Tensor | bool | int | float | str) else str(value)


def step_unless(refused: Tensor, optimizer: Any) -> None:
    """``optimizer.step()``, which changes nothing if ``refused``.

    By ``found_inf``, as ``torch.amp.GradScaler`` tells fused optimisers of gradients that are not finite. Before the
    first update an optimiser has no state that it could leave as it is.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False) and optimizer.state:
        optimizer.found_inf = refused.to(torch.float32)
        optimizer.step()
        del optimizer.found_inf
    elif not refused:
        optimizer.step()
