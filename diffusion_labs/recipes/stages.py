"""Recipes of several stages, of which each begins with what the one before has made."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffusion_labs.data import EncodedDataset, MapDataset
from diffusion_labs.locking import sole_user
from diffusion_labs.training import (
    CheckpointError,
    Experiment,
    Tracker,
    TrainOptions,
    latest_checkpoint,
    load_newest,
    post_hoc_ema,
    train,
)
from diffusion_labs.training.world import joined

RUN_FILE = "run.json"


@runtime_checkable
class Before(Protocol):
    """What the stages before one have left, for it to begin with."""

    def weights(self, stage: str) -> dict[str, Any]:
        """The averaged weights of a stage that trains."""

    def data(self, stage: str) -> MapDataset:
        """What a stage has written."""

    def begun(self, stage: str) -> bool:
        """Whether a stage has a checkpoint, which has what is measured when it begins."""


@dataclass(frozen=True)
class Finished:
    """What they have left in the folder of a run."""

    run_dir: Path

    def weights(self, stage: str) -> dict[str, Any]:
        """See ``Before``."""
        return trained_weights(self.run_dir / stage)

    def data(self, stage: str) -> EncodedDataset:
        """See ``Before``."""
        return EncodedDataset(self.run_dir / stage)

    def begun(self, stage: str) -> bool:
        """See ``Before``."""
        return latest_checkpoint(self.run_dir / stage / "checkpoints") is not None


@dataclass(frozen=True)
class Rehearsal:
    """What they would leave, if they were carried out: for plans, on weights without memory.

    Attributes:
        experiments: of the stages that train.
        datasets: of those that write.
    """

    experiments: dict[str, Experiment] = field(default_factory=dict)
    datasets: dict[str, MapDataset] = field(default_factory=dict)

    def weights(self, stage: str) -> dict[str, Any]:
        """See ``Before``."""
        return self.experiments[stage].model.state_dict()

    def data(self, stage: str) -> MapDataset:
        """See ``Before``."""
        return self.datasets[stage]

    def begun(self, stage: str) -> bool:
        """Always, for there is nothing that could be measured."""
        return True


@dataclass(frozen=True)
class Stage:
    """One part of a run, with a folder of its own in the run's.

    Attributes:
        name: of its folder.
        carry_out: ``carry_out(run_dir, options, trackers)`` does it, or goes on with it where it was stopped.
        rehearse: ``rehearse(rehearsal)`` adds what it would leave.
    """

    name: str
    carry_out: Callable[[Path, TrainOptions, Sequence[Tracker]], None]
    rehearse: Callable[[Rehearsal], None]


@dataclass(frozen=True)
class Stages:
    """What a recipe of several stages returns.

    Attributes:
        stages: in their order.
        description: plain data from which the model can be built again, written to the run's folder.
        parts: the stages that train the model: by the names of its modules, or all of it, "", by one stage.
    """

    stages: Sequence[Stage]
    description: Mapping[str, Any]
    parts: Mapping[str, str]

    def carry_out(self, run_dir: Path, options: TrainOptions, trackers: Sequence[Tracker] = ()) -> None:
        """Carry out all stages, or go on where they were stopped, with all processes that torchrun has started.

        Args:
            run_dir: the run's folder.
            options: see ``TrainOptions``.
            trackers: beside those that the options name; each stage that trains is a run for them.

        Raises:
            InUseError: if another process carries them out in this folder.
        """
        with (
            joined(options.device, timeout=options.timeout) as world,
            sole_user(run_dir) if world.main else nullcontext(),
        ):
            for stage in self.stages:
                stage.carry_out(run_dir, options, trackers)

    def until(self, name: str) -> "Stages":
        """The stages up to one.

        Raises:
            ValueError: if there is none of this name.
        """
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise ValueError(f"this recipe has no stage '{name}'; it has {names}")
        return replace(self, stages=self.stages[: names.index(name) + 1])


def single(experiment: Experiment) -> Stages:
    """A recipe of one stage, whose folder is the run's own."""
    return Stages([training_stage("", lambda before: experiment)], experiment.description, {"": ""})


def training_stage(name: str, build: Callable[[Before], Experiment]) -> Stage:
    """A stage that trains.

    Args:
        name: of its folder.
        build: from what the stages before have left to the experiment.
    """

    def carry_out(run_dir: Path, options: TrainOptions, trackers: Sequence[Tracker]) -> None:
        told = "-".join(filter(None, (run_dir.resolve().name, name)))
        about = _described(run_dir)
        train(build(Finished(run_dir)), run_dir / name, options, trackers, name=told, about=about)

    def rehearse(rehearsal: Rehearsal) -> None:
        rehearsal.experiments[name] = build(rehearsal)

    return Stage(name, carry_out, rehearse)


def trained_weights(stage_dir: Path, sigma_rel: float | None = None) -> dict[str, Any]:
    """The averaged weights of the newest whole checkpoint of a stage, as a state dict.

    Args:
        stage_dir: the stage's folder.
        sigma_rel: take the power-function average of this width instead, see ``post_hoc_ema``.

    Raises:
        CheckpointError: if there is none.
        ValueError: if there is no such width.
    """
    if sigma_rel is not None:
        return post_hoc_ema(stage_dir, sigma_rel=sigma_rel)
    newest = load_newest(stage_dir / "checkpoints", ("ema",))
    if newest is None:
        raise CheckpointError(f"{stage_dir} has no checkpoint; train this stage first")
    weights: dict[str, Any] = newest[1]["ema"]["model"]
    return weights


def _described(run_dir: Path) -> dict[str, Any]:
    """What ``prepare_run`` has written of a run."""
    path = run_dir / RUN_FILE
    described: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return described
