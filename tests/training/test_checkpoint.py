"""Checkpoints: whole or not at all, verified, and free of code."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from diffusion_labs import files
from diffusion_labs.training import (
    CheckpointError,
    checkpoint,
    latest_checkpoint,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from diffusion_labs.training.checkpoint import checkpoints, set_aside_later
from diffusion_labs.training.checkpoint_writer import CheckpointWriter

STATE = {
    "model": {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "empty": torch.zeros(0),
        "half": torch.ones(2).bfloat16(),
    },
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(4)}},
        "groups": [{"lr": 1e-3, "betas": (0.9, 0.99), "params": [0], "fused": None, "amsgrad": False}],
    },
    "random": {"cpu": torch.get_rng_state(), "cuda": []},
    "step": 5,
}


def assert_same(left: object, right: object) -> None:
    left, right = torch.utils._pytree.tree_flatten(left), torch.utils._pytree.tree_flatten(right)
    assert left[1] == right[1]
    for a, b in zip(left[0], right[0], strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 5, STATE)
    assert path == latest_checkpoint(tmp_path)
    assert_same(load_checkpoint(path), STATE)
    assert_same(load_checkpoint(path, ("model",)), {"model": STATE["model"]})


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    x = torch.randn(4, 4)
    state = {"model": {"a": x, "b": x, "c": x.mT, "d": x[::2]}}
    assert_same(load_checkpoint(save_checkpoint(tmp_path, 1, state)), state)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 100):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]


def test_some_are_kept_for_ever(tmp_path: Path) -> None:
    for step in range(1, 13):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2, keep_every=5)
    assert [path.name[-2:] for path in sorted(tmp_path.iterdir())] == ["05", "10", "11", "12"]


def test_what_was_just_written_stays_whatever_later_steps_are_there(tmp_path: Path) -> None:
    for step in (100, 200, 300, 150):
        path = save_checkpoint(tmp_path, step, {"step": step}, keep=1)
        assert load_checkpoint(path)["step"] == step
    assert [path.name[-3:] for path in checkpoints(tmp_path)] == ["150", "300"]
    (tmp_path / "step-00000300" / "structure.json").unlink()
    with pytest.warns(UserWarning, match="step-00000300 is set aside as step-00000300.set-aside-.*from step 150"):
        set_aside_later(tmp_path, 150)
    save_checkpoint(tmp_path, 300, {"step": 300}, keep=1)
    assert load_newest(tmp_path)[1] == {"step": 300}
    assert len([*tmp_path.glob("step-00000300.set-aside-*/manifest.json")]) == 1


def test_every_flipped_byte_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "good", 5, STATE)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        damaged_contents = [content[: len(content) // 2], b""]
        for offset in range(0, len(content), max(1, len(content) // 9)):
            damaged_contents.append(content[:offset] + bytes([content[offset] ^ 4]) + content[offset + 1 :])
        for damaged in damaged_contents:
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=str(path)):
                load_checkpoint(path)
        file.unlink()
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            load_checkpoint(path)
        file.write_bytes(content)
    assert_same(load_checkpoint(path), STATE)


@pytest.mark.parametrize("target", ["structure.json", "model.safetensors", "manifest.json"])
def test_a_pickle_in_place_of_a_file_does_not_run(tmp_path: Path, target: str) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = save_checkpoint(tmp_path / "c", 5, STATE)
    (path / target).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not marker.exists()


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, also for root."""
    code = """
import resource, signal, sys, torch
from pathlib import Path
from diffusion_labs.training import CheckpointError, load_checkpoint, save_checkpoint
folder = Path(sys.argv[1])
good = save_checkpoint(folder, 1, {"model": {"a": torch.ones(10)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint(folder, 2, {"model": {"a": torch.ones(100_000)}})
except CheckpointError as error:
    print("refused:", error)
assert load_checkpoint(good)["model"]["a"].sum() == 10
print(sorted(path.name for path in folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "refused: the checkpoint of step 2 could not be written" in done.stdout, done.stderr
    assert "['step-00000001']" in done.stdout


def test_leftovers_of_a_killed_save_are_no_checkpoint(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 5, STATE)
    shutil.copytree(path, tmp_path / ".tmp-0123")
    (tmp_path / ".tmp-0123" / "structure.json").unlink()
    assert latest_checkpoint(tmp_path) == path


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"structure.json": 1}', "{}"])
@pytest.mark.parametrize("file", ["manifest.json", "structure.json"])
def test_json_of_another_kind_is_damage(tmp_path: Path, file: str, content: str) -> None:
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step, {"step": step})
    (path / file).write_text(content)
    manifest = {"structure.json": files.sha256(path / "structure.json")}
    if file == "structure.json" and content != "{}":  # a hash that fits helps nothing
        (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="taking the checkpoint before it"):
        assert load_newest(tmp_path, ("step",))[1] == {"step": 1}


@pytest.mark.parametrize("keys", [{"a.b": 0, "a": {"b": 1}}, {0: 5, "0": 7}])
def test_tensors_that_would_share_a_name_are_refused(tmp_path: Path, keys: dict) -> None:
    state = torch.utils._pytree.tree_map(torch.tensor, {"x": keys})
    with pytest.raises(ValueError, match=r"two tensors of the state have the name 'x\.(a\.b|0)'"):
        save_checkpoint(tmp_path, 1, state)


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep"):
        save_checkpoint(tmp_path, 1, {}, keep=0)
    with pytest.raises(TypeError, match=r"state\['a.b'\] is a set"):
        save_checkpoint(tmp_path, 1, {"a": {"b": {1}}})
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(tmp_path / "file", 1, {"step": 1})
    assert latest_checkpoint(tmp_path / "nothing") is None


def test_a_state_that_changes_while_it_is_written_is_saved_as_it_was(tmp_path: Path, monkeypatch) -> None:
    """Training goes on before the first byte is written, and the next save waits for this one."""
    write, go_on, order = checkpoint._write, threading.Event(), []

    def slow(folder: Path, state: checkpoint.Snapshot) -> None:
        assert go_on.wait(30)
        write(folder, state)
        order.append(state.structure["step"]["value"])

    monkeypatch.setattr(checkpoint, "_write", slow)
    state = {"model": {"a": torch.zeros(3)}, "step": 0}
    with CheckpointWriter(tmp_path, keep=3, keep_every=None, failures=0) as writer:
        for step in (1, 2):
            state["model"]["a"] += 1
            state["step"] = step
            writer.save(step, state)
            assert order == list(range(1, step))
            state["model"]["a"] += 10
            go_on.set()
    assert order == [1, 2]
    assert [load_checkpoint(path)["model"]["a"].tolist() for path in checkpoints(tmp_path)] == [[1] * 3, [12] * 3]


def test_writers_of_one_thread_write_in_the_order_of_saving(tmp_path: Path, monkeypatch) -> None:
    write, go_on, order = checkpoint._write, threading.Event(), []

    def slow(folder: Path, state: checkpoint.Snapshot) -> None:
        assert go_on.wait(30)
        write(folder, state)
        order.append(folder.parent.name)

    monkeypatch.setattr(checkpoint, "_write", slow)
    how = {"keep": 3, "keep_every": None, "failures": 0}
    with CheckpointWriter(tmp_path / "a", **how) as a:
        b = CheckpointWriter(tmp_path / "b", **how, thread=a.thread)
        b.save(1, {"step": 1})
        a.save(1, {"step": 1})
        go_on.set()
        b.save(2, {"step": 2})
    assert order == ["b", "a", "b"]


@pytest.mark.parametrize("fatal", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path, fatal: int) -> None:
    """When a file, all files, or the folder are not yet flushed: the thread that writes dies with the process."""
    code = """
import os, signal, sys, torch
from pathlib import Path
from diffusion_labs.training import checkpoint
from diffusion_labs.training.checkpoint_writer import CheckpointWriter
folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
flushed, flush = [], checkpoint.flush

def dying(path):
    flushed.append(path)
    if len(flushed) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)

with CheckpointWriter(folder, keep=3, keep_every=None, failures=0) as writer:
    writer.save(1, {"model": {"a": torch.ones(10)}})
    writer.finish(needed=True)
    checkpoint.flush = dying
    writer.save(2, {"model": {"a": torch.full((10,), 2.0)}})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(fatal)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    path, state = load_newest(tmp_path)
    assert path.name == "step-00000001"
    assert state["model"]["a"].sum() == 10
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
