"""Training: the objective, the loop, the average of the weights, and checkpoints that resume exactly."""

from diffusion_labs.training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from diffusion_labs.training.device import find_device
from diffusion_labs.training.ema import EMA
from diffusion_labs.training.experiment import Experiment
from diffusion_labs.training.learning_rate import WarmupCosine
from diffusion_labs.training.loop import Stopped, TrainOptions, train
from diffusion_labs.training.objective import Objective
from diffusion_labs.training.state import TrainState

__all__ = [
    "EMA",
    "CheckpointError",
    "Experiment",
    "Objective",
    "Stopped",
    "TrainOptions",
    "TrainState",
    "WarmupCosine",
    "find_device",
    "latest_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
