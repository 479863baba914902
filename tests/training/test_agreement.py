"""What each process counts of its own batches, and what all know: of that, and of where they go on."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion_labs.data import Batches
from diffusion_labs.training import (
    BaseObjective,
    Experiment,
    TrainOptions,
    checkpoint,
    latest_checkpoint,
    load_checkpoint,
    train,
)
from diffusion_labs.training.code_revival import CodeRevival
from diffusion_labs.training.log import read_metrics
from diffusion_labs.training.metric_means import MetricMeans
from tests.training.ranks import on_ranks


class Codes(BaseObjective):
    """Each sample uses the code of its number, and is 99 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net.codebook = nn.Parameter(torch.zeros(10, 2))
        self.means = MetricMeans(["code"])
        self.revival = CodeRevival(10, 2, window=4)

    def forward(self, batch: dict) -> Tensor:
        code = batch["code"]
        self.revival.observe(torch.full((len(code), 2), 99.0), torch.bincount(code, minlength=10))
        self.means.add({"code": code.double().mean()})
        return 0 * self.net.codebook[code].sum()

    def metrics(self) -> dict[str, Tensor]:
        return self.means.take()

    def awaits(self, step: int) -> bool:
        return step % 4 == 0

    def after_update(self, step: int) -> None:
        self.revival.after_update(self.net.codebook, step)


def codes(steps: int) -> Experiment:
    objective = Codes()
    return Experiment(
        objective=objective,
        model=objective.net,
        batches=Batches([{"code": i} for i in range(8)], 2, seed=0),
        optimizer=torch.optim.SGD(objective.parameters(), 0.1),
        steps=steps,
    )


def carry_out(folder: str) -> None:
    train(codes(4), Path(folder) / "whole", TrainOptions(parallelism="ddp", log_every=4))
    train(codes(2), Path(folder) / "resumed", TrainOptions(parallelism="ddp"))
    train(codes(4), Path(folder) / "resumed", TrainOptions(parallelism="ddp", resume=True))


@pytest.mark.slow
def test_no_process_forgets_what_it_has_counted(tmp_path: Path) -> None:
    """The eight codes of eight samples live, also if the run was resumed between; the mean is that of all samples."""
    assert on_ranks(2, carry_out, tmp_path) == ["", ""]
    for place in ("whole", "resumed"):
        saved = load_checkpoint(latest_checkpoint(tmp_path / place / "checkpoints"))
        assert saved["objective"]["net.codebook"][:, 0].tolist() == [0.0] * 8 + [99.0] * 2
    assert read_metrics(tmp_path / "whole")[-1]["code"] == 3.5


def resume(folder: str, fault: str) -> None:
    """Where the second process sees another newest checkpoint, or has one of another run in its place."""
    run = Path(folder)
    if fault == "stale" and current_rank() == 1:
        listed = checkpoint.checkpoints
        checkpoint.checkpoints = lambda place: listed(place)[:-1]
    if fault == "damaged" and current_rank() == 1:
        checkpoint.load_file = _failing
    print(train(codes(4), run, TrainOptions(parallelism="ddp", resume=True)).step)


def current_rank() -> int:
    return int(os.environ["RANK"])


def _failing(path: Path) -> None:
    raise OSError("I/O error")


@pytest.mark.slow
def test_all_go_on_from_the_checkpoint_of_the_first_or_none(tmp_path: Path) -> None:
    for steps in (2, 3):
        train(codes(steps), tmp_path, TrainOptions(resume=True))
    told = on_ranks(2, resume, tmp_path, "damaged")
    assert all("process 1 cannot go on from where the first does: " in line for line in told), told
    assert all(line.endswith("step-00000003 is not a whole checkpoint: OSError: I/O error") for line in told), told
    assert on_ranks(2, resume, tmp_path, "stale") == ["4\n", "4\n"]
    saved = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints"))
    assert saved["batches"]["position"] + 4 * saved["batches"]["epoch"] == 4
