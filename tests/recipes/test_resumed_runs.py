"""With what other arguments a run can be resumed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from diffusion_labs.data import DataError
from diffusion_labs.locking import InUseError, sole_user
from diffusion_labs.recipes.run import prepare_run, read_run
from diffusion_labs.training import CheckpointError, TrainOptions, checkpoint
from diffusion_labs.training.log import read_metrics

OPTIONS = TrainOptions(resume=True, log_every=1)


def train(data: Path, run_dir: Path, **changes: object) -> None:
    small = {"data_dir": data, "size": 8, "steps": 2, "batch_size": 4, "model_channels": 32}
    prepare_run("images", small | changes, run_dir, resume=True).carry_out(run_dir, OPTIONS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for index in range(8):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (30 * index, 0, 0)).save(place / f"{index}.png")
    return tmp_path / "data"


def test_more_steps_and_another_path_of_the_same_data_and_nothing_else(data: Path, tmp_path: Path) -> None:
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    train(data, run_dir)
    for change in ({"steps": 1}, {"steps": 4, "learning_rate": 0.1}, {"seed": 1}):
        name = "steps" if change == {"steps": 1} else list(change)[-1]
        with pytest.raises(CheckpointError, match=rf"other arguments \({name} was [^;]*\); .*More steps are possible"):
            train(data, run_dir, **change)
    assert "changes" not in read_run(run_dir)
    shutil.copytree(data, moved)
    train(moved, run_dir, steps=4)
    assert [line["step"] for line in read_metrics(run_dir)] == [1, 2, 3, 4]
    train(moved, run_dir, steps=4)
    assert read_run(run_dir)["changes"] == [
        {
            "steps_done": {"run": 2},
            "data_dir": {"was": str(data), "is": str(moved)},
            "steps": {"was": 2, "is": 4},
        }
    ]
    (moved / "a" / "0.png").rename(moved / "a" / "other.png")
    with pytest.raises(DataError, match="the data is not that of the saved run"):
        train(moved, run_dir, steps=4)


def test_another_path_needs_a_fingerprint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    train(data, run_dir)
    shutil.copytree(data, moved)
    load = checkpoint.load_checkpoint

    def older(*arguments: object) -> dict:
        state = load(*arguments)
        state["batches"].pop("data")
        return state

    monkeypatch.setattr(checkpoint, "load_checkpoint", older)
    with pytest.raises(CheckpointError, match=r"data_dir was .*/data, is .*/moved"):
        train(moved, run_dir)


def test_a_run_in_use_is_not_described_anew(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(data, tmp_path / "run")
    before = read_run(tmp_path / "run")
    with sole_user(tmp_path / "run"):
        monkeypatch.setattr("threading.get_ident", lambda: 0)  # as another thread
        with pytest.raises(InUseError):
            train(data, tmp_path / "run", steps=4)
    assert read_run(tmp_path / "run") == before
