"""One process at a time in a folder, whatever became of the one before."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diffusion_labs import locking
from diffusion_labs.locking import LOCK, InUseError, sole_user

HOLD = """
import sys
from pathlib import Path
from diffusion_labs.locking import sole_user
with sole_user(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def held(folder: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "in\n"
    return child


def left_by(folder: Path, **changes: object) -> None:
    """What a process leaves that could not go."""
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps({**locking._myself(), **changes}))


def test_a_second_process_is_refused_until_the_first_is_gone_or_killed(tmp_path: Path) -> None:
    child = held(tmp_path)
    message = rf"is in use by process {child.pid} on \S+ since 20\d\d-.*; wait for its end, or choose another folder"
    with pytest.raises(InUseError, match=message), sole_user(tmp_path):
        pass
    child.kill()
    child.communicate()
    assert (tmp_path / LOCK).read_text()
    with sole_user(tmp_path):
        pass
    assert not (tmp_path / LOCK).read_text()
    child = held(tmp_path)
    child.communicate()
    with sole_user(tmp_path):
        pass


def test_a_thread_may_ask_again_and_others_may_not(tmp_path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with sole_user(tmp_path):
                pass
        except InUseError as error:
            refused.append(str(error))

    with sole_user(tmp_path):
        with sole_user(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        child = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ["another thread" in message for message in refused] == [True]
    assert "InUseError" in child.stderr


@pytest.mark.parametrize("locks", [True, None], ids=["locks", "disk that cannot lock"])
def test_what_was_left_is_taken_over_where_its_process_is_surely_dead(tmp_path: Path, monkeypatch, locks) -> None:
    monkeypatch.setattr(locking, "_lock", lambda file: locks)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    requeued = {"host": "elsewhere", "boot": "other", "job": "17"}
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for gone in ({"pid": dead.pid}, {"boot": "before"}, {**requeued, "restart": "0"}):
        left_by(tmp_path, **gone)
        with sole_user(tmp_path):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(locking, "_lock", lambda file: False)  # the server has not noticed yet
        left_by(tmp_path, **requeued, restart="0")
        with sole_user(tmp_path):
            pass
    living = [{**requeued, "restart": "1"}, {**requeued, "job": "18"}, *([] if locks else [{}])]
    for alive in living:
        left_by(tmp_path, **alive)
        with pytest.raises(InUseError, match=r"surely dead, remove .*/\.lock, else"), sole_user(tmp_path):
            pass
    (tmp_path / LOCK).write_text('{"host": "half of')  # as of a host that lost its power
    with sole_user(tmp_path):
        pass
