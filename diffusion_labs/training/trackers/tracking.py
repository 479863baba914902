"""The trackers of a run: each is told every step once."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.files import write_json
from diffusion_labs.training.trackers.tracker import TrackedRun, Tracker

TRACKERS_FILE = "trackers.json"
KEPT = ("id", "scalars", "picture")


class TrackerError(RuntimeError):
    """A tracker that cannot begin to track a run."""


class Tracking:
    """What a run's log tells, it tells to trackers. One that fails is left out, with a warning.

    ``trackers.json`` in the run's folder holds what each tracker has. No random number of the training changes.

    Args:
        trackers: of different names.
        run: of which they know nothing yet.
    """

    def __init__(self, trackers: Sequence[Tracker], run: TrackedRun) -> None:
        names = [tracker.name for tracker in trackers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"several trackers have the name '{twice[0]}'; give each its own, as in name='{twice[0]}-2'"
            )
        self.trackers = trackers
        self.run = run
        self.path = run.folder / TRACKERS_FILE
        self.active: dict[str, Tracker] = {}
        self.known: dict[str, dict[str, Any]] = {}

    def start(self, step: int, lines: Sequence[Mapping[str, float]]) -> None:
        """Begin, or go on, and send what a tracker has not.

        Args:
            step: updates of the run that are done; if none, this is a new run for every tracker.
            lines: the scalars until then.

        Raises:
            TrackerError: if a tracker that does not know the run yet cannot begin.
        """
        if step == 0:
            self.path.unlink(missing_ok=True)
        self.known = json.loads(self.path.read_text()) if self.path.exists() else {}
        for tracker in self.trackers:
            self._start(tracker)
            for line in lines:
                values = dict(line)
                self._scalars(tracker, int(values.pop("step")), values)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Tell all trackers the numbers of a step."""
        for tracker in [*self.active.values()]:
            self._scalars(tracker, step, values)

    def picture(self, step: int, image: Tensor) -> None:
        """Show all trackers a picture."""
        for tracker in [*self.active.values()]:
            if step > self.known[tracker.name]["picture"]:
                with self._spared(tracker, f"at step {step}"):
                    tracker.picture(step, image.cpu())
                    self._remember(tracker, picture=step)

    def finish(self, complete: bool) -> None:
        """Let all trackers write what is left."""
        for tracker in [*self.active.values()]:
            with self._spared(tracker, "at the end"):
                tracker.finish(complete)
        self.active = {}

    def _start(self, tracker: Tracker) -> None:
        known = self.known.get(tracker.name)
        self.active[tracker.name] = tracker
        try:
            with self._spared(tracker, "as the run was resumed", fatal=known is None):
                run = tracker.start(self.run._replace(**(known or {})))
                self._remember(tracker, **{key: getattr(run, key) for key in KEPT})
        except Exception as error:
            del self.active[tracker.name]
            self.finish(complete=False)
            raise TrackerError(
                f"the tracker '{tracker.name}' cannot begin: {type(error).__name__}: {error}; a run that begins "
                "without it can be resumed with it, and sends it all steps then"
            ) from error

    def _scalars(self, tracker: Tracker, step: int, values: Mapping[str, float]) -> None:
        if tracker.name in self.active and step > self.known[tracker.name]["scalars"]:
            with self._spared(tracker, f"at step {step}"):
                tracker.scalars(step, dict(values))
                self._remember(tracker, scalars=step)

    @contextmanager
    def _spared(self, tracker: Tracker, when: str, *, fatal: bool = False) -> Iterator[None]:
        """What a tracker does, of which the training notices nothing."""
        random = torch.get_rng_state()
        try:
            yield
        except Exception as error:
            if fatal:
                raise
            del self.active[tracker.name]
            warnings.warn(
                f"the tracker '{tracker.name}' failed {when}: {type(error).__name__}: {error}; training goes on "
                "without it, and what it misses is sent when the run is resumed",
                stacklevel=4,
            )
        finally:
            torch.set_rng_state(random)

    def _remember(self, tracker: Tracker, **changes: Any) -> None:
        self.known[tracker.name] = {**self.known.get(tracker.name, {}), **changes}
        write_json(self.path, self.known)
