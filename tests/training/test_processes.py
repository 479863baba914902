"""One run on one process, on two, and on one number after the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_labs.training import latest_checkpoint, load_checkpoint, post_hoc_ema

SCRIPT = """
import os, signal, sys, time, torch
from pathlib import Path
from torch import nn
import diffusion_labs as dl
from diffusion_labs.data import Batches
from diffusion_labs.training import Experiment, Stopped, TrainOptions, train
from tests.catalogue import SCHEDULES, TinyNetwork
folder, steps, poison = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "poison"
kill = sys.argv[3] == "kill" and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

class Data:
    def __len__(self):
        return 40

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        x = torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8, generator=generator)
        return {"x": x, "class": i % 3, "factor": float("nan") if poison and i == 7 else 1.0}

class Double(nn.Module):
    def forward(self, batch):
        return batch | {"x": batch["x"].double()}

class Weighted(nn.Module):
    def forward(self, output, batch):
        error = (output.prediction - batch["target"]).square().flatten(1).mean(1)
        if kill and len(list((folder / "checkpoints").glob("step-*"))) == 2:  # after the eighth update
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[3] in ("slow", "brief"):
            time.sleep(0.2)
        if sys.argv[3] == "hang" and os.environ["RANK"] == "1":
            time.sleep(3600)
        return (error * batch["factor"].to(error.dtype)).mean()

torch.manual_seed(7)
schedule = SCHEDULES["cosine"]()
predictor = dl.VPredictor(schedule)
double = "double" in sys.argv[3:]
network = TinyNetwork().double() if double else TinyNetwork()
sampler = dl.DDIMSampler(dl.CFGuidance(network, {"class": 0.5}), schedule, predictor)
noising = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
transform = nn.Sequential(dl.NormalizeImages(), Double() if double else nn.Identity(), noising)
objective = dl.Objective(transform, sampler, Weighted(), conditions=["class"])
experiment = Experiment(
    objective=objective,
    model=sampler,
    batches=Batches(Data(), 8, seed=1),
    optimizer=torch.optim.SGD(objective.parameters(), 0.05, momentum=0.9),
    steps=steps,
    accumulate=2,
    ema_decay=0.5,
)
ways = {"fsdp": {}, "pairs": {"shards": 2, "reshard": False}}
sharing = next(({"parallelism": "fsdp", **ways[word]} for word in sys.argv[3:] if word in ways), {"parallelism": "ddp"})
minutes = 0.1 if sys.argv[3] in ("hang", "brief") else 1.0
options = TrainOptions(resume=True, save_every=4, log_every=1, timeout=minutes, ema_snapshot_every=5, **sharing)
train(experiment, folder, options)
"""


def start(count: int, *command: str, **options: Any) -> list[subprocess.Popen]:
    """Some processes that find each other, as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return [
        subprocess.Popen([sys.executable, *command], env={**alone, **together, "RANK": str(rank)}, **options)
        for rank in range(count)
    ]


def carry_out(folder: Path, *parts: tuple[int, int, str], poison: bool = False) -> dict:
    """Train with a number of processes, which share the model in a way, until a step; then with others, and so on."""
    for count, steps, way in parts:
        processes = start(count, "-c", SCRIPT, str(folder), str(steps), "poison" if poison else "", way)
        assert [process.wait(timeout=600) for process in processes] == [0] * count
    return found_in(folder)


def found_in(folder: Path) -> dict:
    """The losses of a run, its last checkpoint, and an average that was not tracked."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    state = load_checkpoint(latest_checkpoint(folder / "checkpoints"))
    return {
        **{name: [line[name] for line in lines] for name in ("step", "loss", "gradient_norm", "skipped_updates")},
        **{name: state[name] for name in ("ema", "power_averages", "objective", "optimizer", "batches")},
        "post-hoc": post_hoc_ema(folder, sigma_rel=0.09),
    }


@pytest.fixture(scope="module")
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, dict]:
    """The run on one process, of data of which one sample may be not finite."""
    return request.param, carry_out(tmp_path_factory.mktemp("alone"), (1, 10, ""), poison=request.param)


WAYS = {
    "two": [(2, 10, "ddp")],
    "two in parts": [(2, 10, "fsdp")],
    "two, then one": [(2, 5, "ddp"), (1, 10, "")],
    "one, then two": [(1, 5, ""), (2, 10, "ddp")],
    "one, then two in parts": [(1, 5, ""), (2, 10, "fsdp")],
    "two in parts, then four": [(2, 5, "fsdp"), (4, 10, "ddp")],
    "four in parts": [(4, 10, "fsdp")],
    "four in two pairs, then two": [(4, 5, "pairs"), (2, 10, "fsdp")],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alone", [False], indirect=True)
def test_the_processes_and_what_each_has_of_the_model_do_not_matter(alone, tmp_path: Path, way: str) -> None:
    """Data, noise, times, loss and weights are the same, also after a resume with others."""
    torch.testing.assert_close(carry_out(tmp_path, *WAYS[way]), alone[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_losses_of_twenty_updates_in_float64_are_those_of_one_process(tmp_path: Path) -> None:
    """Relative error 1e-5 is asked for; what there is, is the order of sums."""
    one, two, four = (carry_out(tmp_path / str(count), (count, 20, "double"))["loss"] for count in (1, 2, 4))
    assert len(one) == 20
    torch.testing.assert_close(two, one, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(four, one, rtol=1e-9, atol=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["two", "two in parts"])
@pytest.mark.parametrize("alone", [True], indirect=True)
def test_all_processes_skip_the_update_of_a_bad_sample_of_one(alone, tmp_path: Path, way: str) -> None:
    found = carry_out(tmp_path, *WAYS[way], poison=True)
    assert found["skipped_updates"][-1] > 2
    torch.testing.assert_close(found, alone[1], rtol=1e-5, atol=1e-6)


def torchrun(folder: Path, word: str, *options: str) -> subprocess.Popen:
    """Two processes of ten updates."""
    script = folder.with_suffix(".py")
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.Popen([*command, str(script), str(folder), "10", word], env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False], indirect=True)
def test_a_killed_process_is_started_again_and_the_run_ends_the_same(alone, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert torchrun(folder, "kill", "--max-restarts", "5").wait(timeout=600) == 0  # gloo may fail to connect anew
    torch.testing.assert_close(found_in(folder), alone[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False], indirect=True)
def test_sigterm_to_torchrun_saves_and_the_run_goes_on(alone, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = torchrun(folder, "slow")
    until = time.monotonic() + 300
    while not (folder / "checkpoints" / "step-00000004").exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=300)
    saved = int(latest_checkpoint(folder / "checkpoints").name[-2:])
    assert 4 < saved < 10
    assert torchrun(folder, "").wait(timeout=600) == 0
    torch.testing.assert_close(found_in(folder), alone[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_process_that_waits_in_vain_names_the_other_and_gives_up(tmp_path: Path, way: str, stopped: bool) -> None:
    """One that computes for ever is behind; one whose machine stands still is silent."""
    waits, hangs = start(2, "-c", SCRIPT, str(tmp_path), "10", "hang", way, stderr=subprocess.PIPE, text=True)
    if stopped:
        while not (tmp_path / "metrics.jsonl").exists():
            time.sleep(0.1)
        hangs.send_signal(signal.SIGSTOP)
    told = waits.communicate(timeout=300)[1]
    assert waits.returncode != 0
    assert hangs.poll() is None
    hangs.kill()
    hangs.communicate()
    assert f"{'nothing is heard of' if stopped else 'behind the others is'} process 1" in told
