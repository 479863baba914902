"""Trackers by their names, as the command line gives them."""

from collections.abc import Callable, Mapping, Sequence

from diffusion_labs.spelling import unknown
from diffusion_labs.training.trackers.mlflow_tracker import MLflowTracker
from diffusion_labs.training.trackers.tracker import Tracker
from diffusion_labs.training.trackers.trackio_tracker import TrackioTracker
from diffusion_labs.training.trackers.wandb_tracker import WandbTracker

TRACKERS: Mapping[str, Callable[[], Tracker]] = {
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
    "mlflow": MLflowTracker,
}


def check_names(names: Sequence[str]) -> None:
    """Raise a ``ValueError`` that says what was probably meant if there is no tracker of a name, or one comes twice."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(unknown("tracker", name, TRACKERS))
        if names.count(name) > 1:
            raise ValueError(f"the tracker '{name}' is given {names.count(name)} times; give it once")


def named_trackers(names: Sequence[str]) -> list[Tracker]:
    """The trackers of these names, which go where the environment says.

    Raises:
        ImportError: if the package of one is not installed.
    """
    return [TRACKERS[name]() for name in names]
