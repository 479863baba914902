"""The loop: exact resumption, signals, and what a run writes."""

import json
import os
import signal

import pytest
import torch

from diffusion_labs.training import (
    CheckpointError,
    Stopped,
    TrainOptions,
    TrainState,
    latest_checkpoint,
    load_checkpoint,
    train,
)
from diffusion_labs.training.log import RunLog

EVERY_FIVE = TrainOptions(resume=True, save_every=5, log_every=4)


class Killed(BaseException):
    """Stands for a kill: nothing after it is carried out."""


class DyingBatches:
    """Batches that end the process at one of them."""

    def __init__(self, batches, after: int, die) -> None:
        self.batches = batches
        self.left = after
        self.die = die

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            self.die()
        return next(self.batches)

    def state_dict(self):
        return self.batches.state_dict()

    def load_state_dict(self, state) -> None:
        self.batches.load_state_dict(state)


class NotFinite(torch.nn.Module):
    def forward(self, output, batch) -> torch.Tensor:
        return output.prediction.sum() * float("nan")


class WeightDecay(torch.nn.Module):
    """A loss that does not depend on the batch."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, output, batch) -> torch.Tensor:
        return sum((p**2).sum() for p in self.model.parameters()) + 0 * output.prediction.sum()


def assert_equal_states(left: dict, right: dict) -> None:
    left, right = torch.utils._pytree.tree_flatten(left), torch.utils._pytree.tree_flatten(right)
    assert left[1] == right[1]
    for a, b in zip(left[0], right[0], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("killed_after", [3, 11, 14, 19, 23])
def test_a_killed_run_continues_bit_for_bit(make_experiment, run_dir, tmp_path, killed_after: int) -> None:
    """Parameters, average, optimiser, learning rate, random numbers and data order, at the end."""
    whole = train(make_experiment(), tmp_path / "whole", TrainOptions(save_every=5))

    def die() -> None:
        raise Killed

    experiment = make_experiment()
    experiment.batches = DyingBatches(experiment.batches, killed_after, die)
    with pytest.raises(Killed):
        train(experiment, run_dir, EVERY_FIVE)
    torch.manual_seed(999)  # another process has other random numbers
    resumed = train(make_experiment(), run_dir, EVERY_FIVE)
    assert_equal_states(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_resumes_exactly(make_experiment, run_dir, tmp_path, number) -> None:
    whole = train(make_experiment(), tmp_path / "whole", TrainOptions())
    experiment = make_experiment()
    experiment.batches = DyingBatches(experiment.batches, 13, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped at step 7 of 12") as stopped:
        train(experiment, run_dir, TrainOptions())
    assert stopped.value.signal == number
    assert signal.getsignal(number) is before
    resumed = train(make_experiment(), run_dir, TrainOptions(resume=True))
    assert_equal_states(resumed.state_dict(), whole.state_dict())


def test_a_signal_between_the_save_and_the_end_of_a_step_stops_the_next(make_experiment, run_dir, monkeypatch) -> None:
    def interrupted(self, step: int, **values: float) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunLog, "scalars", interrupted)
    with pytest.raises(Stopped, match="stopped at step 5"):
        train(make_experiment(), run_dir, TrainOptions(log_every=4))
    assert latest_checkpoint(run_dir / "checkpoints").name == "step-00000005"


def test_training_lowers_the_loss(make_experiment, run_dir) -> None:
    experiment = make_experiment(steps=80, accumulate=1, learning_rate=lambda step: 1.0)
    train(experiment, run_dir, TrainOptions(log_every=20))
    losses = [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]


def test_accumulated_gradients_are_averaged(make_experiment, run_dir) -> None:
    """With a loss that is the same for every batch, the number of batches in an update does not matter."""
    states = []
    for accumulate in (1, 2):
        experiment = make_experiment(accumulate=accumulate, steps=1, learning_rate=lambda step: 1.0)
        experiment.objective.loss = WeightDecay(experiment.model)
        states.append(train(experiment, run_dir / str(accumulate), TrainOptions()).model.state_dict())
    assert_equal_states(*(dict(state) for state in states))


def test_metrics_have_one_line_a_logged_step_also_after_a_kill(make_experiment, run_dir) -> None:
    def die() -> None:
        raise Killed

    experiment = make_experiment()
    experiment.batches = DyingBatches(experiment.batches, 19, die)
    with pytest.raises(Killed):
        train(experiment, run_dir, EVERY_FIVE)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # a line that the kill cut off
    train(make_experiment(), run_dir, EVERY_FIVE)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 8, 10, 12]
    assert set(lines[0]) == {"step", "loss", "gradient_norm", "learning_rate", "images_per_second"}


def test_the_preview_is_drawn_by_the_average_and_does_not_disturb_training(make_experiment, run_dir, tmp_path) -> None:
    drawn = []

    def preview(model: torch.nn.Module, path) -> torch.Tensor:
        assert not model.training
        drawn.append(path.name)
        return torch.zeros(4, 4, 3, dtype=torch.uint8)

    plain = train(make_experiment(), tmp_path / "plain", TrainOptions())
    with_preview = train(make_experiment(preview=preview), run_dir, TrainOptions(preview_every=6))
    assert drawn == ["step-00000006.png", "step-00000012.png"]
    assert_equal_states(with_preview.state_dict(), plain.state_dict())


def test_a_second_run_in_the_same_folder_is_refused(make_experiment, run_dir) -> None:
    train(make_experiment(), run_dir, TrainOptions())
    with pytest.raises(CheckpointError, match="already holds a run; resume it"):
        train(make_experiment(), run_dir, TrainOptions())


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(make_experiment, run_dir) -> None:
    experiment = make_experiment()
    train(make_experiment(steps=5), run_dir, EVERY_FIVE)
    experiment.objective.loss = NotFinite()
    with pytest.raises(FloatingPointError, match=r"loss nan.* at step 8"):
        train(experiment, run_dir, EVERY_FIVE)
    newest = latest_checkpoint(run_dir / "checkpoints")
    assert newest.name == "step-00000005"
    assert all(value.isfinite().all() for value in load_checkpoint(newest)["objective"].values())


def test_the_state_holds_what_it_says(make_experiment) -> None:
    state = TrainState(make_experiment()).state_dict()
    assert set(state) == {"ema", "objective", "optimizer", "scheduler", "batches", "random", "step"}
