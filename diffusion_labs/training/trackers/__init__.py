"""Experiment trackers: W&B, Trackio, MLflow, and any of your own."""

from diffusion_labs.training.trackers.mlflow_tracker import MLflowTracker
from diffusion_labs.training.trackers.named import check_names, named_trackers
from diffusion_labs.training.trackers.tracker import TrackedRun, Tracker
from diffusion_labs.training.trackers.tracking import TrackerError, Tracking
from diffusion_labs.training.trackers.trackio_tracker import TrackioTracker
from diffusion_labs.training.trackers.wandb_tracker import WandbTracker

__all__ = [
    "MLflowTracker",
    "TrackedRun",
    "Tracker",
    "TrackerError",
    "Tracking",
    "TrackioTracker",
    "WandbTracker",
    "check_names",
    "named_trackers",
]
