"""All that changes during training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from diffusion_labs.files import tensors_sha256
from diffusion_labs.training.checkpoint import CheckpointError
from diffusion_labs.training.ema import EMA, PowerEMA
from diffusion_labs.training.experiment import Experiment
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
    """

    def __init__(self, experiment: Experiment, sigma_rel: Sequence[float] = ()) -> None:
        self.model = experiment.model
        self.ema = EMA(experiment.model, experiment.ema_decay)
        self.power_averages = [PowerEMA(experiment.model, width) for width in sigma_rel]
        self.objective = experiment.objective
        self.optimizer = experiment.optimizer
        self.scheduler = LambdaLR(experiment.optimizer, experiment.learning_rate)
        self.batches = experiment.batches
        self.guard = UpdateGuard()
        self.step = 0

    def state_dict(self, world: World = ALONE) -> dict[str, Any]:
        """Everything, as nested dicts of tensors and plain data; of all processes, each of which must ask."""
        return {
            "ema": self.ema.state_dict(),
            "power_averages": [average.state_dict() for average in self.power_averages],
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "batches": self.batches.state_dict(),
            "random": world.gather(random_state()),
            "guard": self.guard.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any], world: World = ALONE) -> None:
        """Go back to a saved state, of any number of processes.

        Raises:
            CheckpointError: if it has other power-function averages.
        """
        self.objective.load_state_dict(state["objective"])
        self.ema.load_state_dict(state["ema"])
        self._load_power_averages(state.get("power_averages", []))  # none in checkpoints of earlier versions
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.last_epoch = state["scheduler"]["last_epoch"]
        self.batches.load_state_dict(state["batches"])
        saved = state["random"]
        states = [saved] if isinstance(saved, dict) else saved  # one alone in checkpoints of earlier versions
        if world.data_rank < len(states):
            set_random_state(states[world.data_rank])
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

    def update_averages(self) -> None:
        """Move all averages towards the weights of now."""
        for average in (self.ema, *self.power_averages):
            average.update(self.model)


def random_state() -> dict[str, Any]:
    """The state of torch's global random numbers on all devices."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to a state of torch's global random numbers."""
    torch.set_rng_state(state["cpu"])
    torch.cuda.set_rng_state_all(state["cuda"])
