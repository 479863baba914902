"""Weights & Biases."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_labs.training.trackers.package import PROJECT, tracking_package
from diffusion_labs.training.trackers.tracker import TrackedRun


class WandbTracker:
    """Sends a run to W&B, or writes it to the folder ``wandb`` in the run's with ``WANDB_MODE=offline``.

    A run that is resumed goes on under its id. Online, W&B says what it has; offline, each start leaves one folder, and
    ``wandb sync RUN/wandb/offline-run-*`` makes one run of them. W&B writes these folders every few seconds: what was
    logged since then is lost if the process is killed, but not if it is stopped by a signal or an error.

    Args:
        name: of the tracker.
        **arguments: of ``wandb.init``, such as ``tags`` or ``project`` (``WANDB_PROJECT``, or "diffusion-labs").

    Raises:
        ImportError: that says what to install.

    Example:
        >>> from diffusion_labs.training import WandbTracker
        >>> trackers = [WandbTracker(project="digits", tags=["baseline"])]  # doctest: +SKIP
    """

    def __init__(self, *, name: str = "wandb", **arguments: Any) -> None:
        self.name = name
        self.arguments = arguments
        self.wandb: Any = tracking_package("wandb", "wandb")
        self.run: Any = None

    def start(self, run: TrackedRun) -> TrackedRun:
        """See ``Tracker``."""
        arguments = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "name": run.name,
            "dir": run.folder,
            "config": dict(run.settings),
            "reinit": "create_new",  # a run of the caller's own goes on
            **self.arguments,
        }
        self.run = self.wandb.init(id=run.id, resume="allow", **arguments)
        scalars = run.scalars if self.run.offline else self.run.step - 1  # `step` comes next
        return run._replace(id=self.run.id, scalars=scalars)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, image: Tensor) -> None:
        """See ``Tracker``."""
        self.run.log({"samples": self.wandb.Image(image.numpy())}, step=step)

    def finish(self, complete: bool) -> None:
        """See ``Tracker``."""
        self.run.finish(exit_code=0 if complete else 1)
