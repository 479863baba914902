"""What an experiment tracker is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class TrackedRun(NamedTuple):
    """A run, and what a tracker has of it.

    Attributes:
        name: of the run's folder, and of its stage.
        folder: the run's, or the stage's.
        settings: plain data: the options of the training, what is trained, and of a recipe its name and arguments.
        id: by which the tracker finds the run again; ``None`` if it does not know it yet.
        scalars: the last step whose scalars it has.
        picture: the last step whose picture it has.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    id: str | None = None
    scalars: int = 0
    picture: int = 0


@runtime_checkable
class Tracker(Protocol):
    """Where ``train`` sends the scalars and pictures of a run, such as W&B. The first process alone does.

    It is told each step once, in their order, also when the run is resumed: what it has is kept in the run's folder,
    and what it has not is sent from there. After an error of a method there is a warning, and training goes on without
    the tracker; only a run that it does not know yet does not begin if ``start`` raises one.

    Attributes:
        name: of the tracker among those of a run.
    """

    name: str

    def start(self, run: TrackedRun) -> TrackedRun:
        """Begin to track a run, or go on if ``run.id`` is not ``None``.

        Args:
            run: the run, with what this tracker has of it as far as is known.

        Returns:
            The same with its ``id``, and corrected where the tracker knows better what it has.
        """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step, such as ``"loss"``."""

    def picture(self, step: int, image: Tensor) -> None:
        """Take a preview, uint8 ``[h, w, 3]``, on the CPU."""

    def finish(self, complete: bool) -> None:
        """Write what is left.

        Args:
            complete: whether the run is at its end, or was stopped.
        """
