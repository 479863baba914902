"""Trackers: every step once, whatever happens to the run or to them, and nothing of the training changes."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from diffusion_labs.training import (
    Stopped,
    TrackedRun,
    TrackerError,
    TrainOptions,
    train,
)
from diffusion_labs.training.log import read_metrics
from diffusion_labs.training.trackers import named_trackers
from tests.training.conftest import Uninterrupted
from tests.training.test_loop import DyingBatches, Killed, assert_equal_states

OPTIONS = TrainOptions(resume=True, save_every=5, log_every=2, preview_every=3)
LOGGED = [2, 4, 5, 6, 8, 10, 12]
SHOWN = [3, 6, 9, 12]


def preview(model: torch.nn.Module, path: Path) -> torch.Tensor:
    """A picture of the weights."""
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    return weights[:12].sigmoid().mul(255).byte().reshape(2, 2, 3)


class Recorder:
    """Keeps what it is told, as a service would that knows nothing of the run's folder, and fails when it shall."""

    def __init__(self, name: str = "recorder", *, fails: Mapping[str, int] | None = None) -> None:
        self.name = name
        self.fails = fails or {}
        self.runs: list[dict[str, Any]] = []
        self.calls = {"start": 0, "scalars": 0, "picture": 0, "finish": 0}

    def start(self, run: TrackedRun) -> TrackedRun:
        self.happens("start")
        if run.id is None:
            self.runs.append({"name": run.name, "settings": run.settings, "scalars": [], "pictures": [], "ends": []})
            return run._replace(id=str(len(self.runs) - 1))
        self.run = self.runs[int(run.id)]
        return run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.happens("scalars")
        self.runs[-1]["scalars"].append({"step": step, **values})

    def picture(self, step: int, image: torch.Tensor) -> None:
        self.happens("picture")
        self.runs[-1]["pictures"].append((step, image))

    def finish(self, complete: bool) -> None:
        self.happens("finish")
        self.runs[-1]["ends"].append(complete)

    def happens(self, call: str) -> None:
        torch.rand(7)  # a tracker of someone who does not know better
        self.calls[call] += 1
        if self.calls[call] == self.fails.get(call):
            raise ConnectionError("the network is gone")


def die() -> None:
    raise Killed


def interrupted(run_dir: Path, batches: int, *trackers: Any, dies: Callable[[], None] = die, **changes: Any) -> None:
    """A run that ends after so many batches, two of which are an update."""
    experiment = Uninterrupted()(preview=preview, **changes)
    experiment.batches = DyingBatches(experiment.batches, batches, dies)
    train(experiment, run_dir, OPTIONS, trackers)


@pytest.mark.parametrize("kills", [(15,), (11, 7), (23, 3), (19, 7, 2)])
def test_a_killed_run_is_tracked_as_one_run_of_which_each_step_comes_once(run_dir: Path, kills) -> None:
    tracker = Recorder()
    for batches in kills:
        with pytest.raises(Killed):
            interrupted(run_dir, batches, tracker)
    train(Uninterrupted()(preview=preview), run_dir, OPTIONS, [tracker])
    (run,) = tracker.runs
    assert [line["step"] for line in run["scalars"]] == LOGGED
    assert [step for step, _ in run["pictures"]] == SHOWN
    assert run["ends"] == [False] * len(kills) + [True]
    for line, kept in zip(run["scalars"], read_metrics(run_dir), strict=True):
        assert {**line, "images_per_second": 0} == {**kept, "images_per_second": 0}


def test_a_run_that_begins_anew_is_a_new_one(run_dir: Path) -> None:
    """Without a checkpoint nothing says that the second has the numbers of the first."""
    tracker = Recorder()
    with pytest.raises(Killed):
        interrupted(run_dir, 9, tracker)
    train(Uninterrupted()(), run_dir, OPTIONS, [tracker])
    assert [[line["step"] for line in run["scalars"]] for run in tracker.runs] == [[2, 4], LOGGED]


@pytest.mark.parametrize("call", ["scalars", "picture", "finish"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_tracker_that_fails_is_warned_of_once_and_gets_the_rest_later(
    make_experiment, tmp_path, call, number
) -> None:
    """The training is that without trackers, to the bit, also if they draw random numbers; others go on."""
    expected = train(make_experiment(preview=preview), tmp_path / "plain", OPTIONS)
    failing, other = Recorder(fails={call: number if call != "finish" else 1}), Recorder("other")
    run_dir = tmp_path / "run"
    with pytest.warns(UserWarning, match=r"'recorder' failed at .*ConnectionError: the network is gone; tr") as warned:
        state = train(make_experiment(preview=preview), run_dir, OPTIONS, [failing, other])
    assert len(warned) == 1
    assert_equal_states(state.state_dict(), expected.state_dict())
    assert [line["step"] for line in other.runs[0]["scalars"]] == LOGGED
    train(make_experiment(preview=preview), run_dir, OPTIONS, [failing, other])  # at its end already
    assert [line["step"] for line in failing.runs[0]["scalars"]] == LOGGED
    assert [line["step"] for line in other.runs[0]["scalars"]] == LOGGED
    assert failing.runs[0]["ends"] == [True] * len(failing.runs[0]["ends"])


def test_a_tracker_that_cannot_go_on_is_sent_the_rest_at_the_next_start(make_experiment, run_dir: Path) -> None:
    tracker = Recorder(fails={"start": 2})
    with pytest.raises(Killed):
        interrupted(run_dir, 13, tracker)
    with pytest.warns(UserWarning, match="'recorder' failed as the run was resumed"):
        train(make_experiment(), run_dir, OPTIONS, [tracker])
    train(make_experiment(), run_dir, OPTIONS, [tracker])
    assert [line["step"] for line in tracker.runs[0]["scalars"]] == LOGGED


def test_a_tracker_that_comes_later_gets_what_was_before(make_experiment, run_dir: Path) -> None:
    late = Recorder()
    with pytest.raises(Killed):
        interrupted(run_dir, 13)
    train(make_experiment(), run_dir, OPTIONS, [late])
    assert [line["step"] for line in late.runs[0]["scalars"]] == LOGGED


def test_a_tracker_that_knows_better_what_it_has_is_believed(make_experiment, run_dir: Path) -> None:
    class Careless(Recorder):
        """Loses what a killed process had not sent yet."""

        def start(self, run: TrackedRun) -> TrackedRun:
            if run.id is not None:
                del self.runs[0]["scalars"][3:]
                return run._replace(scalars=self.runs[0]["scalars"][-1]["step"])
            return super().start(run)

    tracker = Careless()
    with pytest.raises(Killed):
        interrupted(run_dir, 23, tracker)
    train(make_experiment(), run_dir, OPTIONS, [tracker])
    assert [line["step"] for line in tracker.runs[0]["scalars"]] == LOGGED


def test_a_new_run_does_not_begin_if_a_tracker_cannot(make_experiment, run_dir: Path) -> None:
    good = Recorder("good")
    with pytest.raises(TrackerError, match=r"'recorder' cannot begin: ConnectionError: the network is gone"):
        train(make_experiment(), run_dir, OPTIONS, [good, Recorder(fails={"start": 1})])
    assert good.runs[0]["ends"] == [False]
    assert not any((run_dir / "checkpoints").iterdir())


def test_two_trackers_of_one_name_are_refused(make_experiment, run_dir: Path) -> None:
    with pytest.raises(ValueError, match="several trackers have the name 'recorder'"):
        train(make_experiment(), run_dir, OPTIONS, [Recorder(), Recorder()])


def test_a_run_is_named_after_its_folder_and_says_its_options(make_experiment, run_dir: Path) -> None:
    tracker = Recorder()
    train(make_experiment(description={"kind": "tiny"}), run_dir, OPTIONS, [tracker], about={"author": "me"})
    (run,) = tracker.runs
    assert run["name"] == "run"
    assert run["settings"]["model"] == {"kind": "tiny"}
    assert run["settings"]["author"] == "me"
    assert run["settings"]["options"]["log_every"] == 2
    assert json.loads(json.dumps(run["settings"])) == run["settings"]


SCRIPT = """
import os, sys
from pathlib import Path
from diffusion_labs.training import train
from tests.training.conftest import Uninterrupted
from tests.training.test_trackers import OPTIONS, Recorder

def carry_out(rank):
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
    tracker = Recorder()
    train(Uninterrupted()(steps=4), Path(sys.argv[1]), OPTIONS, [tracker])
    return tracker.calls

child = os.fork()  # with all that is imported
if child == 0:
    os._exit(any(carry_out("1").values()))
print(carry_out("0"), os.waitpid(child, 0)[1])
"""


@pytest.mark.slow
def test_the_first_process_alone_tracks(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        env={**os.environ, **places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "{'start': 1, 'scalars': 2, 'picture': 0, 'finish': 1} 0"


# The real packages, without a network


NEEDED = {"wandb": "writes a run's file", "trackio": "keeps a database", "mlflow": "keeps a store"}
THERE = [name for name in NEEDED if importlib.util.find_spec(name)]


def need(name: str) -> None:
    if name not in THERE:
        pytest.skip(f"{name}, which {NEEDED[name]}, is not installed: extra `track`")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A run that was killed and went on, tracked by all packages that are there, beside one without trackers."""
    if not THERE:
        pytest.skip("no tracker's package is installed: extra `track`")
    folder = tmp_path_factory.mktemp("tracked")
    places = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONFIG_DIR": folder / "wandb",
        "WANDB_CACHE_DIR": folder / "wandb",
        "TRACKIO_DIR": folder / "trackio",  # read when it is imported
        "MLFLOW_TRACKING_URI": (folder / "mlflow").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in places.items():
            environment.setenv(name, str(value))
        plain = train(Uninterrupted()(preview=preview), folder / "plain", OPTIONS)
        with pytest.raises(Killed):
            interrupted(folder / "run", 17, *named_trackers(THERE))
        state = train(Uninterrupted()(preview=preview), folder / "run", OPTIONS, named_trackers(THERE))
        known = json.loads((folder / "run" / "trackers.json").read_text())
        yield SimpleNamespace(folder=folder, run_dir=folder / "run", known=known, states=(state, plain))


def shown_last(tracked: SimpleNamespace, file: Path) -> bool:
    """Whether a file is the picture of the last step."""
    picture = Image.open(file)
    expected = preview(tracked.states[0].ema.model, file)
    return picture.size == (2, 2) and picture.convert("RGB").tobytes() == bytes(expected.flatten().tolist())


def expected(tracked: SimpleNamespace, name: str) -> list[tuple[int, float]]:
    """The numbers of a name in ``metrics.jsonl``."""
    return [(line["step"], line[name]) for line in read_metrics(tracked.run_dir)]


def test_no_package_changes_the_training(tracked: SimpleNamespace) -> None:
    assert_equal_states(*(state.state_dict() for state in tracked.states))


def test_mlflow_has_one_run_with_each_step_once(tracked: SimpleNamespace, tmp_path: Path) -> None:
    need("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = [found for found in client.search_experiments() if found.name == "diffusion-labs"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == tracked.known["mlflow"]["id"]
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["options.save_every"] == "5"
    for name in ("loss", "gradient_norm", "learning_rate"):
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == expected(tracked, name)
    paths = [file.path for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")]
    pictures = {int(path.split("+step+")[1].split("+")[0]): path for path in paths}
    assert (sorted(pictures), len(paths)) == (SHOWN, len(SHOWN))
    assert shown_last(tracked, Path(client.download_artifacts(run.info.run_id, pictures[12], str(tmp_path))))


def test_mlflow_without_its_store_costs_the_training_nothing(make_experiment, tmp_path, monkeypatch) -> None:
    """As if the disk of the store were gone for a while: it gets what it missed when the run is resumed."""
    need("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    expected = train(make_experiment(), tmp_path / "plain", OPTIONS)

    def gone() -> None:
        if not (tmp_path / "away").exists():
            (tmp_path / "store").rename(tmp_path / "away")

    experiment = make_experiment()
    experiment.batches = DyingBatches(experiment.batches, 10, gone)
    with pytest.warns(UserWarning, match="'mlflow' failed at step 6: .*store.*; training goes on") as warned:
        state = train(experiment, tmp_path / "run", OPTIONS, named_trackers(["mlflow"]))
    assert len([warning for warning in warned if "'mlflow'" in str(warning.message)]) == 1
    assert_equal_states(state.state_dict(), expected.state_dict())

    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "store")
    train(make_experiment(), tmp_path / "run", OPTIONS, named_trackers(["mlflow"]))  # at its end already
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("diffusion-labs").experiment_id])
    assert sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "loss")) == LOGGED
    assert run.info.status == "FINISHED"


@pytest.mark.slow  # MLflow lays out its tables for some seconds
def test_mlflow_in_a_database(make_experiment, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mlflow")
    pytest.importorskip("alembic", reason="MLflow lays out its tables with it")
    from mlflow import MlflowClient

    from diffusion_labs.training import MLflowTracker

    monkeypatch.chdir(run_dir)
    tracker = MLflowTracker(tracking_uri="sqlite:///mlflow.db", experiment="mine")
    with pytest.raises(Killed):
        interrupted(run_dir, 17, tracker)
    train(make_experiment(preview=preview), run_dir, OPTIONS, [tracker])
    client = MlflowClient("sqlite:///mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert sorted(steps) == LOGGED


def test_trackio_has_one_run_with_each_step_once(tracked: SimpleNamespace) -> None:
    need("trackio")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("diffusion-labs")
    assert run.name == tracked.known["trackio"]["id"]
    assert run.name.startswith("run-")
    assert run.config["options"]["save_every"] == 5
    logs = SQLiteStorage.get_logs("diffusion-labs", run.name, run_id=run.id)
    for name in ("loss", "gradient_norm", "learning_rate"):
        assert [(line["step"], line[name]) for line in logs if name in line] == expected(tracked, name)
    pictures = [line for line in logs if "samples" in line]
    assert [line["step"] for line in pictures] == SHOWN
    assert shown_last(tracked, tracked.folder / "trackio" / "media" / pictures[-1]["samples"]["file_path"])


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: protocol buffers in a log of LevelDB's format, after seven bytes of a heading."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if place % 32768 > 32768 - 7:  # no record begins at the end of a block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb_has_one_run_with_each_step_once(tracked: SimpleNamespace) -> None:
    """Offline each start writes a file, and `wandb sync` makes one run of those with one id, in their order."""
    need("wandb")
    files = sorted(tracked.run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    records = [list(wandb_records(file)) for file in files]
    runs = [record.run for file in records for record in file if record.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {tracked.known["wandb"]["id"]}
    assert {run.display_name for run in runs} == {"run"}
    config = {update.key: update.value_json for update in runs[0].config.update}
    assert json.loads(config["options"])["save_every"] == 5
    lines = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for file in records
        for record in file
        if record.WhichOneof("record_type") == "history"
    ]
    for name in ("loss", "gradient_norm", "learning_rate"):
        assert [(line["_step"], line[name]) for line in lines if name in line] == expected(tracked, name)
    pictures = [line for line in lines if "samples/path" in line]
    assert [line["_step"] for line in pictures] == SHOWN
    assert shown_last(tracked, files[-1].parent / "files" / pictures[-1]["samples/path"])
    exits = [record.exit.exit_code for file in records for record in file if record.WhichOneof("record_type") == "exit"]
    assert exits == [1, 0]


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"tracking by {name} needs .*pip install {name}; .*diffusion-labs\[track\]"):
        named_trackers([name])


def test_a_signal_stops_a_tracked_run_as_another(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(Stopped, match="stopped at step 7 of 12"):
        interrupted(run_dir, 13, *named_trackers(["wandb"]), dies=lambda: os.kill(os.getpid(), signal.SIGTERM))
