"""All that changes during training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from diffusion_labs.files import tensors_sha256
from diffusion_labs.training.checkpoint import CheckpointError
from diffusion_labs.training.ema import EMA, PowerEMA
from diffusion_labs.training.experiment import Experiment
from diffusion_labs.training.parts import load_whole, part_of
from diffusion_labs.training.update_guard import UpdateGuard
from diffusion_labs.training.world import World

ALONE = World()


class TrainState:
    """Weights, their averages, optimiser, learning rate, place in the data, random numbers, skipped updates and step.

    Restoring it continues a run bit for bit on the same machine with as many processes. With another number of them the
    batches, their noise, their times and the conditions dropped are the same; what networks draw for dropout is not.

    Args:
        experiment: the run, whose parts this state refers to.
        sigma_rel: widths of power-function averages.
        allocated: whether averages have memory; else ``allocate`` gives it to them, when the model is shared.
    """

    def __init__(self, experiment: Experiment, sigma_rel: Sequence[float] = (), *, allocated: bool = True) -> None:
        self.model = experiment.model
        self.ema = EMA(experiment.model, experiment.ema_decay, allocated=allocated)
        self.power_averages = [PowerEMA(experiment.model, width, allocated=allocated) for width in sigma_rel]
        self.objective = experiment.objective
        self.optimizer = experiment.optimizer
        self.scheduler = LambdaLR(experiment.optimizer, experiment.learning_rate)
        self.batches = experiment.batches
        self.accumulate = experiment.accumulate
        self.guard = UpdateGuard()
        self.step = 0

    def allocate(self) -> None:
        """Let averages begin with the weights of now."""
        for average in (self.ema, *self.power_averages):
            average.allocate(self.model)

    def state_dict(self, world: World = ALONE) -> dict[str, Any]:
        """Everything, as nested dicts of tensors and plain data; of all processes, each of which must ask."""
        return {
            "ema": self.ema.state_dict(),
            "power_averages": [average.state_dict() for average in self.power_averages],
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "batches": self.batches.state_dict(),
            "random": world.gather(random_state(self.device)),
            "guard": self.guard.state_dict(),
            "settings": self.settings(),
            "step": self.step,
        }

    def settings(self) -> dict[str, Any]:
        """What must be the same where a run goes on."""
        return {"optimizer": type(self.optimizer).__name__, "accumulate": self.accumulate}

    @property
    def device(self) -> torch.device:
        """That of the weights of this process."""
        return next(self.objective.parameters()).device

    def load_state_dict(self, state: dict[str, Any], world: World = ALONE) -> None:
        """Go back to a saved state, of any number of processes.

        The learning rate is that of the experiment, at the saved step; what else the optimizer has is as it was saved.

        Raises:
            CheckpointError: if it has other power-function averages, or is of another optimizer or number of batches in
                an update.
        """
        for name, value in self.settings().items():
            before = state.get("settings", {}).get(name, value)  # none in checkpoints of earlier versions
            if before != value:
                raise CheckpointError(
                    f"{name} is {value}, and was {before} before; resume with that one, or begin a new run"
                )
        load_whole(self.objective, state["objective"])
        self.ema.load_state_dict(state["ema"])
        self._load_power_averages(state.get("power_averages", []))  # none in checkpoints of earlier versions
        self._load_optimizer(state["optimizer"])
        self._go_to(state["scheduler"]["last_epoch"])
        self.batches.load_state_dict(state["batches"])
        saved = state["random"]
        states = [saved] if isinstance(saved, dict) else saved  # one alone in checkpoints of earlier versions
        if world.data_rank < len(states):
            set_random_state(states[world.data_rank], self.device)
        else:
            torch.manual_seed(int(tensors_sha256({"cpu": states[0]["cpu"]})[:15], 16) + world.data_rank)
        if "guard" in state:  # not in checkpoints of earlier versions
            self.guard.load_state_dict(state["guard"])
        self.step = state["step"]

    def _load_power_averages(self, states: Sequence[dict[str, Any]]) -> None:
        saved = [state["sigma_rel"] for state in states]
        asked = [average.sigma_rel for average in self.power_averages]
        if saved != asked:
            raise CheckpointError(
                f"this run has averages of the widths {saved}, not {asked}, and they begin with its first step; resume "
                "with --ema-snapshot-every and --ema-sigma-rel as before, or begin a new run"
            )
        for average, state in zip(self.power_averages, states, strict=True):
            average.load_state_dict(state)

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments = {
            place: {
                name: part_of(value, parameters[place]) if isinstance(value, Tensor) else value
                for name, value in of_one.items()
            }
            for place, of_one in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": moments})

    def _go_to(self, update: int) -> None:
        """Set the learning rate of an update."""
        scheduler = self.scheduler
        scheduler.last_epoch = update
        scheduler._last_lr = []
        for group, base, share in zip(
            self.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            rate: Any = base * share(update)
            group["lr"] = group["lr"].copy_(rate) if isinstance(group["lr"], Tensor) else rate
            group["initial_lr"] = base
            scheduler._last_lr.append(rate)

    def update_averages(self) -> None:
        """Move all averages towards the weights of now."""
        for average in (self.ema, *self.power_averages):
            average.update(self.model)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of torch's global random numbers, and of those of a device."""
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go back to a state of torch's global random numbers, and of those of a device."""
    torch.set_rng_state(state["cpu"])
    saved = state["cuda"]  # of one device; of all in checkpoints of earlier versions
    if saved and device.type == "cuda":
        torch.cuda.set_rng_state(saved[min(device.index or 0, len(saved) - 1)], device)
