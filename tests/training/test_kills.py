"""A run that is killed again and again, also inside of saves, ends as one that is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_labs.training import latest_checkpoint, load_checkpoint
from tests.training.test_loop import assert_equal_states

SCRIPT = """
import os, random, signal, sys, time, torch
from pathlib import Path
from diffusion_labs.training import TrainOptions, latest_checkpoint, train
from tests.training.conftest import Uninterrupted

folder, kills, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def carry_out(place):
    train(Uninterrupted()(steps=steps), folder / place, TrainOptions(resume=True, save_every=2, log_every=50))

def started(place):
    child = os.fork()  # with all that is imported
    if child == 0:
        torch.manual_seed(random.SystemRandom().getrandbits(60))
        carry_out(place)
        os._exit(0)
    return child

moment, writing = random.Random(0), 0
checkpoints = folder / "killed" / "checkpoints"
for _ in range(kills):
    before, child = latest_checkpoint(checkpoints), started("killed")
    while latest_checkpoint(checkpoints) == before:
        time.sleep(0.001)
    time.sleep(moment.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    writing += any(checkpoints.glob(".tmp-*"))
for place in ("killed", "whole"):
    assert os.waitpid(started(place), 0)[1] == 0
print(writing)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_at_any_moment_change_nothing(tmp_path: Path) -> None:
    """Parameters, averages, optimizer, random numbers and place in the data are the same to the bit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "50", "600"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 2  # were in the middle of a save
    states = [load_checkpoint(latest_checkpoint(tmp_path / place / "checkpoints")) for place in ("killed", "whole")]
    assert states[0]["step"] == 600
    assert_equal_states(*states)
