"""Trackers by the command line: what they are told of a recipe, its stages, and a package that is missing."""

import sys
from pathlib import Path
from typing import Any

import pytest

from diffusion_labs.cli import main
from diffusion_labs.recipes.stages import Stages, training_stage
from diffusion_labs.training import TrainOptions
from diffusion_labs.training.trackers.named import TRACKERS
from tests.cli.conftest import SMALL
from tests.training.conftest import Uninterrupted
from tests.training.test_trackers import Recorder


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """The trackers that are made where the options name `trackio` or `mlflow`."""
    made: list[Recorder] = []

    def make(name: str) -> Recorder:
        made.append(Recorder(name))
        return made[-1]

    for name in ("trackio", "mlflow"):
        monkeypatch.setitem(TRACKERS, name, lambda name=name: make(name))
    return made


def begun(recorders: list[Recorder]) -> list[dict[str, Any]]:
    return [run for recorder in recorders for run in recorder.runs]


def test_several_trackers_are_told_the_recipe_and_its_arguments(recorders, tmp_path: Path) -> None:
    main(["train", "digits", *SMALL, "--track", "mlflow", "--track", "trackio", "--run-dir", str(tmp_path / "mine")])
    runs = begun(recorders)
    assert len(runs) == 2
    for run in runs:
        assert run["name"] == "mine"
        assert run["settings"]["recipe"] == "digits"
        assert run["settings"]["arguments"]["batch_size"] == 8
        assert run["settings"]["options"]["track"] == ["mlflow", "trackio"]
        assert [line["step"] for line in run["scalars"]] == [2, 4, 6]
        assert [step for step, _ in run["pictures"]] == [6]


def test_each_stage_is_a_run_that_has_its_name(recorders, tmp_path: Path) -> None:
    stages = [training_stage(name, lambda before: Uninterrupted()(steps=2)) for name in ("autoencoder", "diffusion")]
    Stages(stages, {}, {}).carry_out(tmp_path / "mine", TrainOptions(track=("mlflow",)))
    assert [run["name"] for run in begun(recorders)] == ["mine-autoencoder", "mine-diffusion"]


def test_a_missing_package_is_told_before_anything_is_written(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "digits", "--track", "wandb", "--run-dir", str(tmp_path / "run")])
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install wandb" in line
    assert not (tmp_path / "run").exists()
