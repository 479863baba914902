"""MLflow."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from diffusion_labs.training.trackers.package import PROJECT, tracking_package
from diffusion_labs.training.trackers.tracker import TrackedRun

PARAMS = 100  # that MLflow takes at once


class MLflowTracker:
    """Sends a run to MLflow: to the server, or the database of this machine, that ``MLFLOW_TRACKING_URI`` says.

    Args:
        name: of the tracker.
        tracking_uri: instead of the environment's, such as "sqlite:///mlflow.db".
        experiment: of MLflow, to which the run belongs; ``MLFLOW_EXPERIMENT_NAME``, or "diffusion-labs".

    Raises:
        ImportError: that says what to install.

    Example:
        >>> from diffusion_labs.training import MLflowTracker
        >>> trackers = [MLflowTracker(tracking_uri="http://localhost:5000")]  # doctest: +SKIP
    """

    def __init__(self, *, name: str = "mlflow", tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self.name = name
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.mlflow: Any = tracking_package("mlflow", "mlflow")
        self.client: Any = None
        self.run_id = ""

    def start(self, run: TrackedRun) -> TrackedRun:
        """See ``Tracker``."""
        self.client = self.mlflow.MlflowClient(self.tracking_uri)
        if run.id is None:
            self.run_id = self.client.create_run(self._experiment_id(), run_name=run.name).info.run_id
            params = [self.mlflow.entities.Param(key, str(value)) for key, value in flat(run.settings)]
            for i in range(0, len(params), PARAMS):
                self.client.log_batch(self.run_id, params=params[i : i + PARAMS])
        else:
            self.run_id = run.id
            self.client.update_run(run.id, status="RUNNING")
        return run._replace(id=self.run_id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        now = time.time_ns() // 1_000_000
        metrics = [self.mlflow.entities.Metric(key, value, now, step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def picture(self, step: int, image: Tensor) -> None:
        """See ``Tracker``."""
        self.client.log_image(self.run_id, image.numpy(), key="samples", step=step)

    def finish(self, complete: bool) -> None:
        """See ``Tracker``."""
        self.client.set_terminated(self.run_id, status="FINISHED" if complete else "KILLED")

    def _experiment_id(self) -> str:
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        return self.client.create_experiment(name) if found is None else found.experiment_id


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings within settings by one name: ``options.device``."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
