"""Training: the objective, the loop, the average of the weights, and checkpoints that resume exactly."""

from diffusion_labs.locking import InUseError
from diffusion_labs.training.autoencoder_objective import (
    AutoencoderObjective,
    absolute_error,
    squared_error,
)
from diffusion_labs.training.base_objective import BaseObjective
from diffusion_labs.training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from diffusion_labs.training.contrastive_objective import ContrastiveObjective
from diffusion_labs.training.device import find_device
from diffusion_labs.training.ema import EMA, PowerEMA
from diffusion_labs.training.ema_snapshots import post_hoc_ema
from diffusion_labs.training.experiment import Experiment
from diffusion_labs.training.fake import unallocated
from diffusion_labs.training.kl_objective import KLObjective
from diffusion_labs.training.learning_rate import WarmupCosine
from diffusion_labs.training.loop import train
from diffusion_labs.training.objective import Objective
from diffusion_labs.training.options import OptionError, TrainOptions
from diffusion_labs.training.plan import plan_update, trace_update
from diffusion_labs.training.state import TrainState
from diffusion_labs.training.stop_signals import Stopped
from diffusion_labs.training.traced_update import Plan, TracedUpdate
from diffusion_labs.training.trackers import (
    MLflowTracker,
    TrackedRun,
    Tracker,
    TrackerError,
    TrackioTracker,
    WandbTracker,
)
from diffusion_labs.training.vq_objective import VQObjective

__all__ = [
    "EMA",
    "AutoencoderObjective",
    "BaseObjective",
    "CheckpointError",
    "ContrastiveObjective",
    "Experiment",
    "InUseError",
    "KLObjective",
    "MLflowTracker",
    "Objective",
    "OptionError",
    "PowerEMA",
    "Plan",
    "Stopped",
    "TrainOptions",
    "TracedUpdate",
    "TrackedRun",
    "Tracker",
    "TrackerError",
    "TrackioTracker",
    "TrainState",
    "VQObjective",
    "WandbTracker",
    "WarmupCosine",
    "absolute_error",
    "find_device",
    "latest_checkpoint",
    "load_checkpoint",
    "load_newest",
    "post_hoc_ema",
    "plan_update",
    "save_checkpoint",
    "squared_error",
    "trace_update",
    "train",
    "unallocated",
]
