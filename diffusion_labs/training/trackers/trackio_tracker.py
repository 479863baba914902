"""Trackio."""

import uuid
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_labs.training.trackers.package import PROJECT, tracking_package
from diffusion_labs.training.trackers.tracker import TrackedRun


class TrackioTracker:
    """Sends a run to Trackio: to a database on this machine (``TRACKIO_DIR``), a server or a Space of the hub.

    Trackio finds a run by its name, so that a few letters are added to the name of the folder. It writes twice a
    second: what was logged since is lost if the process is killed, but not if it is stopped by a signal or an error.

    Args:
        name: of the tracker.
        **arguments: of ``trackio.init``, such as ``project`` ("diffusion-labs" if not given) and ``space_id``.

    Raises:
        ImportError: that says what to install.

    Example:
        >>> from diffusion_labs.training import TrackioTracker
        >>> trackers = [TrackioTracker(project="digits")]  # doctest: +SKIP
    """

    def __init__(self, *, name: str = "trackio", **arguments: Any) -> None:
        self.name = name
        self.arguments = arguments
        self.trackio: Any = tracking_package("trackio", "trackio")
        self.run: Any = None

    def start(self, run: TrackedRun) -> TrackedRun:
        """See ``Tracker``."""
        arguments = {
            "project": PROJECT,
            "config": dict(run.settings),
            "name": run.id or f"{run.name}-{uuid.uuid4().hex[:6]}",
            **self.arguments,
        }
        self.run = self.trackio.init(resume="never" if run.id is None else "must", **arguments)
        return run._replace(id=self.run.name)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, image: Tensor) -> None:
        """See ``Tracker``."""
        self.run.log({"samples": self.trackio.Image(image.numpy())}, step=step)

    def finish(self, complete: bool) -> None:
        """See ``Tracker``."""
        self.trackio.finish()
