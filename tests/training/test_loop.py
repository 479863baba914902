"""The loop: exact resumption, signals, and what a run writes."""

import errno
import json
import os
import signal
from collections.abc import Container
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.data import Batches
from diffusion_labs.locking import InUseError
from diffusion_labs.training import (
    CheckpointError,
    Experiment,
    OptionError,
    Stopped,
    TrainOptions,
    TrainState,
    WarmupCosine,
    checkpoint,
    latest_checkpoint,
    load_checkpoint,
    train,
)
from diffusion_labs.training.checkpoint import checkpoints
from diffusion_labs.training.log import RunLog, read_metrics
from diffusion_labs.training.state import set_random_state
from diffusion_labs.training.stop_signals import stop_signals
from tests.catalogue import SCHEDULES

EVERY_FIVE = TrainOptions(resume=True, save_every=5, log_every=4)
WITH_SNAPSHOTS = replace(EVERY_FIVE, ema_snapshot_every=5)


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


def damaged_file(folder) -> None:
    """Flip a bit of the weights."""
    path = folder / "objective.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def missing_file(folder) -> None:
    """Lose a file."""
    (folder / "optimizer.safetensors").unlink(missing_ok=True)


def assert_equal_states(left: dict, right: dict) -> None:
    left, right = torch.utils._pytree.tree_flatten(left), torch.utils._pytree.tree_flatten(right)
    assert left[1] == right[1]
    for a, b in zip(left[0], right[0], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("killed_after", [3, 11, 14, 19, 23])
@pytest.mark.parametrize("fused", [False, True])
def test_a_killed_run_continues_bit_for_bit(make_experiment, run_dir, tmp_path, killed_after: int, fused: bool) -> None:
    """Parameters, averages and their snapshots, optimiser, learning rate, random numbers and data order, at the end."""
    whole = train(make_experiment(fused=fused), tmp_path / "whole", replace(WITH_SNAPSHOTS, save_every=4))

    def die() -> None:
        raise Killed

    experiment = make_experiment(fused=fused)
    experiment.batches = DyingBatches(experiment.batches, killed_after, die)
    with pytest.raises(Killed):
        train(experiment, run_dir, WITH_SNAPSHOTS)
    torch.manual_seed(999)  # another process has other random numbers
    resumed = train(make_experiment(fused=fused), run_dir, WITH_SNAPSHOTS)
    assert_equal_states(resumed.state_dict(), whole.state_dict())
    snapshots = [
        [(path.name, load_checkpoint(path)) for path in checkpoints(folder / "ema_snapshots")]
        for folder in (run_dir, tmp_path / "whole")
    ]
    assert_equal_states(*snapshots)
    assert [name[-2:] for name, _ in snapshots[0]] == ["05", "10", "12"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_made_longer_has_the_learning_rates_of_the_longer_from_there_on(
    make_experiment, run_dir, tmp_path, fused: bool
) -> None:
    def rates(folder, steps: int) -> list[float]:
        experiment, seen = make_experiment(fused=fused, steps=steps, learning_rate=WarmupCosine(steps, warmup=1)), []
        experiment.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
        train(experiment, folder, EVERY_FIVE)
        return seen

    whole = rates(tmp_path / "whole", 12)
    assert rates(run_dir, 6) != whole[:6]
    assert rates(run_dir, 12) == whole[6:]


def test_reading_ahead_changes_nothing_also_in_a_run_that_stops_and_goes_on(make_experiment, run_dir, tmp_path) -> None:
    whole = train(make_experiment(), tmp_path / "whole", EVERY_FIVE)
    train(make_experiment(steps=7), run_dir, replace(EVERY_FIVE, read_ahead=3))
    resumed = train(make_experiment(), run_dir, replace(EVERY_FIVE, read_ahead=1))
    assert_equal_states(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("killed_after", [3, 14, 19, 20])
@pytest.mark.parametrize("fused", [False, True])
def test_an_error_between_updates_saves_the_last_one(make_experiment, run_dir, tmp_path, killed_after, fused) -> None:
    """Data that cannot be read, and memory that does not suffice, cost no update; saved ones are not saved again."""

    def experiment() -> Experiment:
        made = make_experiment(fused=fused)
        made.objective.loss = Counting()
        return made

    def fail() -> None:
        raise torch.OutOfMemoryError("no memory")

    whole, failing = train(experiment(), tmp_path / "whole", EVERY_FIVE), experiment()
    failing.batches = DyingBatches(failing.batches, killed_after, fail)
    with pytest.raises(torch.OutOfMemoryError, match="no memory") as raised:
        train(failing, run_dir, EVERY_FIVE)
    assert "--checkpointing full" in raised.value.__notes__[0]
    assert latest_checkpoint(run_dir / "checkpoints").name == f"step-{killed_after // 2:08d}"
    assert_equal_states(train(experiment(), run_dir, EVERY_FIVE).state_dict(), whole.state_dict())


def test_an_error_is_told_even_if_the_state_cannot_be_saved(make_experiment, run_dir, monkeypatch) -> None:
    experiment = make_experiment()

    def fail() -> None:
        raise ValueError("bad data")

    experiment.batches = DyingBatches(experiment.batches, 7, fail)
    monkeypatch.setattr(checkpoint, "_write", FullDisk({3}))
    with pytest.warns(UserWarning, match="step 3 could not be saved"), pytest.raises(ValueError, match="bad data"):
        train(experiment, run_dir, EVERY_FIVE)


def test_a_run_goes_on_with_its_optimizer_and_a_new_learning_rate(make_experiment, run_dir) -> None:
    train(make_experiment(steps=4), run_dir, EVERY_FIVE)
    with pytest.raises(CheckpointError, match="accumulate is 1, and was 2 before"):
        train(make_experiment(accumulate=1), run_dir, EVERY_FIVE)
    other = make_experiment()
    other.optimizer = torch.optim.SGD(other.objective.parameters(), 0.1)
    with pytest.raises(CheckpointError, match="optimizer is SGD, and was AdamW before"):
        train(other, run_dir, EVERY_FIVE)
    same, lower = make_experiment(steps=5), make_experiment(steps=5)
    lower.optimizer = torch.optim.AdamW(lower.objective.parameters(), 0.0)
    before = load_checkpoint(latest_checkpoint(run_dir / "checkpoints"))
    state = TrainState(same)
    state.load_state_dict(before)
    assert state.optimizer.state_dict()["param_groups"] == before["optimizer"]["param_groups"]
    train(lower, run_dir, EVERY_FIVE)
    assert_equal_states(dict(lower.objective.state_dict()), before["objective"])  # a rate of zero, from the first on
    assert read_metrics(run_dir)[-1]["learning_rate"] == 0


def test_random_numbers_are_those_of_the_own_device(monkeypatch) -> None:
    """Of a machine with eight, one goes on with the only one of another."""
    used = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: used.update({device: state}))
    saved = {"cpu": torch.get_rng_state(), "cuda": list(range(8))}  # as checkpoints of earlier versions
    set_random_state(saved, torch.device("cuda:3"))
    assert used == {torch.device("cuda:3"): 3}
    set_random_state({**saved, "cuda": [7]}, torch.device("cuda:3"))
    set_random_state(saved, torch.device("cpu"))
    assert used == {torch.device("cuda:3"): 7}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_finish_the_step_save_and_resume_exactly(make_experiment, run_dir, tmp_path, number) -> None:
    """Each arrives twice, as from a scheduler and a launcher."""
    whole = train(make_experiment(), tmp_path / "whole", TrainOptions())
    experiment = make_experiment()

    def twice() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)

    experiment.batches = DyingBatches(experiment.batches, 13, twice)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped at step 7 of 12") as stopped:
        train(experiment, run_dir, TrainOptions())
    assert stopped.value.signal == number
    assert signal.getsignal(number) is before
    resumed = train(make_experiment(), run_dir, TrainOptions(resume=True))
    assert_equal_states(resumed.state_dict(), whole.state_dict())


def test_a_second_press_of_ctrl_c_ends_at_once_and_an_ignored_signal_stays_so(monkeypatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    clock = iter([0.0, 0.5, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with stop_signals() as stopping:
        signal.raise_signal(signal.SIGHUP)
        assert not stopping
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert len(stopping) == 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGHUP, before)


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
    assert set(lines[0]) == {"step", "loss", "gradient_norm", "learning_rate", "images_per_second", "skipped_updates"}


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


class PoisonedBatches(DyingBatches):
    """Batches with others between them whose loss is so many times as large, at some places of all."""

    def __init__(self, batches, factor: float, places: tuple[int, ...]) -> None:
        super().__init__(batches, 0, None)
        self.factor = factor
        self.places = places
        self.given = 0

    def __next__(self):
        self.given += 1
        if self.given in self.places:
            x = torch.full((8, 1, 8, 8), 7, dtype=torch.uint8)
            return {"x": x, "class": torch.zeros(8, dtype=torch.long), "factor": torch.tensor([self.factor])}
        return next(self.batches)


class Counting(torch.nn.Module):
    """A loss that keeps a running mean of what it meets, as batch normalisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, output, batch) -> torch.Tensor:
        error = (output.prediction - batch["target"]).square().mean()
        self.mean.lerp_(error.detach(), 0.5)
        return error * batch.get("factor", torch.ones(1)).mean()


@pytest.mark.parametrize(
    ("factor", "places"), [(float("nan"), (1, 9, 10, 32)), (-float("inf"), (60,)), (3e3, (40, 61))]
)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("log_every", [1, 5, 100])
def test_a_bad_batch_is_as_if_it_were_not_there(
    make_experiment, tmp_path, factor, places, fused: bool, log_every: int
) -> None:
    """Whether the host knows of it at once, as where it writes, or an update later."""
    states = []
    for name, chosen in (("good", ()), ("poisoned", places)):
        torch.manual_seed(0)
        experiment = make_experiment(steps=60, accumulate=1, learning_rate=lambda step: 1 / (1 + step), fused=fused)
        experiment.objective.loss = Counting()
        experiment.batches = PoisonedBatches(experiment.batches, factor, chosen)
        torch.manual_seed(1)
        with nullcontext() if not chosen else pytest.warns(UserWarning, match="is skipped, as its loss is"):
            state = train(experiment, tmp_path / name, TrainOptions(resume=True, save_every=7, log_every=log_every))
        assert state.guard.skipped == len(chosen)
        states.append(state.state_dict())
    good, poisoned = ({key: value for key, value in state.items() if key != "guard"} for state in states)
    assert_equal_states(good, poisoned)
    assert read_metrics(tmp_path / "poisoned")[-1]["skipped_updates"] == len(places)


def test_a_loss_that_is_never_finite_ends_the_run_and_is_not_saved(make_experiment, run_dir) -> None:
    experiment = make_experiment()
    train(make_experiment(steps=5), run_dir, EVERY_FIVE)
    experiment.objective.loss = NotFinite()
    options = replace(EVERY_FIVE, skipped_updates=2)
    with (
        pytest.warns(UserWarning, match=r"after step 5 is skipped, as its loss is nan .* so far: 2"),
        pytest.raises(FloatingPointError, match=r"after step 5 is skipped.*, like 2 before it; its batches are in"),
    ):
        train(experiment, run_dir, options)
    newest = latest_checkpoint(run_dir / "checkpoints")
    assert newest.name == "step-00000005"
    assert all(value.isfinite().all() for value in load_checkpoint(newest)["objective"].values())
    batches = load_checkpoint(run_dir / "skipped" / "step-00000005")["batches"]
    expected = make_experiment().batches
    for _ in range(5 * 2 + 2 * 2):
        next(expected)
    for batch in batches:
        assert_equal_states(batch, next(expected))


@pytest.mark.filterwarnings("ignore:the update after")
def test_a_batch_that_a_checkpoint_cannot_hold_does_not_hide_why_the_run_ends(
    run_dir, make_experiment, monkeypatch
) -> None:
    data = [{"x": torch.zeros(1, 8, 8, dtype=torch.uint8), "class": 0, "path": Path(f"{i}.png")} for i in range(8)]
    experiment = make_experiment(batches=Batches(data, 8))
    experiment.objective.loss = NotFinite()
    with pytest.raises(FloatingPointError, match="its batches are in"):
        train(experiment, run_dir, TrainOptions(skipped_updates=0))
    (batch, _) = load_checkpoint(run_dir / "skipped" / "step-00000000")["batches"]
    assert sorted(batch["path"]) == [f"{i}.png" for i in range(8)]
    monkeypatch.setattr(checkpoint, "_write", FullDisk({}).fail)
    experiment = make_experiment()
    experiment.objective.loss = NotFinite()
    with pytest.raises(FloatingPointError, match=r"its batches are lost: .* No space left"):
        train(experiment, run_dir, TrainOptions(skipped_updates=0))


@pytest.mark.parametrize("damage", [damaged_file, missing_file], ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(
    make_experiment, run_dir, tmp_path, damage
) -> None:
    expected = train(make_experiment(), tmp_path / "whole", EVERY_FIVE)
    train(make_experiment(steps=10), run_dir, EVERY_FIVE)
    damage(run_dir / "checkpoints" / "step-00000010")
    with pytest.warns(UserWarning, match=r"step-00000010.*; taking the checkpoint before it"):
        state = train(make_experiment(), run_dir, EVERY_FIVE)
    assert_equal_states(state.state_dict(), expected.state_dict())
    for path in (run_dir / "checkpoints").iterdir():
        damage(path)
    with (
        pytest.warns(UserWarning, match="taking the checkpoint before it"),
        pytest.raises(CheckpointError, match=r"none of the 3 checkpoints in .* is whole"),
    ):
        train(make_experiment(), run_dir, EVERY_FIVE)


class FullDisk:
    """Writes checkpoints, but not those of some steps."""

    def __init__(self, steps: Container[int]) -> None:
        self.steps = steps
        self.write = checkpoint._write

    def fail(self, folder, state) -> None:
        """What writes nothing."""
        raise OSError(errno.ENOSPC, "No space left on device")

    def __call__(self, folder, state) -> None:
        if state.structure["step"]["value"] in self.steps:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(folder, state)


def test_a_full_disk_stops_a_save_and_not_the_training(make_experiment, run_dir, tmp_path, monkeypatch) -> None:
    expected = train(make_experiment(), tmp_path / "whole", EVERY_FIVE)
    monkeypatch.setattr(checkpoint, "_write", FullDisk({4, 6, 10}))
    with pytest.warns(
        UserWarning, match=r"step 4 could not be written to .*MiB free.*No space left.*; training goes on"
    ):
        state = train(make_experiment(), run_dir, replace(EVERY_FIVE, save_every=2, failed_saves=2))
    assert_equal_states(state.state_dict(), expected.state_dict())
    assert [path.name for path in checkpoints(run_dir / "checkpoints")] == [f"step-{n:08d}" for n in (2, 8, 12)]


@pytest.mark.parametrize(("full", "failed"), [(range(4, 13), 8), ({12}, 12)])
def test_too_many_failed_saves_or_the_last_end_the_run(make_experiment, run_dir, monkeypatch, full, failed) -> None:
    monkeypatch.setattr(checkpoint, "_write", FullDisk(full))
    warned = pytest.warns(UserWarning, match="training goes on") if failed == 8 else nullcontext()
    with warned, pytest.raises(CheckpointError, match=f"the checkpoint of step {failed} could not be written"):
        train(make_experiment(), run_dir, replace(EVERY_FIVE, save_every=2, failed_saves=2))
    newest = latest_checkpoint(run_dir / "checkpoints")
    assert load_checkpoint(newest)["step"] == (2 if failed == 8 else 10)


def test_a_last_snapshot_that_cannot_be_written_is_made_by_a_resume(make_experiment, run_dir, monkeypatch) -> None:
    """There is no checkpoint of that step, which would be resumed from."""
    write = checkpoint._write

    def full(folder, state) -> None:
        if folder.parent.name == "ema_snapshots" and len(checkpoints(folder.parent)) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, state)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(CheckpointError, match=r"step 12 .* to .*ema_snapshots"):
        train(make_experiment(), run_dir, WITH_SNAPSHOTS)
    assert latest_checkpoint(run_dir / "checkpoints").name == "step-00000010"
    monkeypatch.setattr(checkpoint, "_write", write)
    train(make_experiment(), run_dir, WITH_SNAPSHOTS)
    assert latest_checkpoint(run_dir / "ema_snapshots").name == "step-00000012"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_every": 0}, r"keep_every \(0\) must be at least 1"),
        ({"spike_factor": float("nan")}, r"spike_factor \(nan\) must be at least 1"),
        ({"failed_saves": -1}, r"failed_saves \(-1\) must be at least 0"),
    ],
)
def test_options_that_make_no_sense_are_named(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainOptions(**change)


def test_options_that_do_not_fit_the_run_are_named(make_experiment, run_dir) -> None:
    with pytest.raises(OptionError, match=r"shards \(3\) must divide the number of processes \(1\)"):
        train(make_experiment(), run_dir, TrainOptions(shards=3))
    with pytest.raises(OptionError, match="no module of this Objective can recompute its blocks"):
        train(make_experiment(), run_dir, TrainOptions(checkpointing="full"))


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"checkpointing": "selective"}, 0.0),
        ({"precision": "bf16"}, 0.1),
        pytest.param({"compile": True}, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_recomputed_compiled_or_in_bfloat16_a_run_is_the_same(run_dir, tmp_path, change, tolerance) -> None:
    """To rounding. Its checkpoints go on without."""

    def experiment(steps: int) -> Experiment:
        torch.manual_seed(0)
        network = dl.dit(in_channels=1, size=8, patch_size=4, dim=16, depth=2, num_heads=2, classes={"class": 3})
        schedule = SCHEDULES["cosine"]()
        sampler = dl.DDIMSampler(network, schedule, dl.VPredictor(schedule))
        transform = torch.nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(sampler.predictor))
        objective = dl.Objective(transform, sampler, dl.SimpleLoss(), conditions=["class"])
        data = [{"x": torch.full((1, 8, 8), i / 8), "class": i % 3} for i in range(8)]
        optimizer = torch.optim.SGD(objective.parameters(), 0.1, momentum=0.9)
        return Experiment(
            objective=objective, model=sampler, batches=Batches(data, 4, 0), optimizer=optimizer, steps=steps
        )

    whole = train(experiment(6), tmp_path / "whole", TrainOptions()).state_dict()
    train(experiment(4), run_dir, TrainOptions(**change))
    found = train(experiment(6), run_dir, TrainOptions(resume=True)).state_dict()
    for name, weight in whole["objective"].items():
        torch.testing.assert_close(found["objective"][name], weight, rtol=tolerance, atol=tolerance / 10)


def test_the_state_holds_what_it_says(make_experiment) -> None:
    state = TrainState(make_experiment()).state_dict()
    held = {
        "ema",
        "power_averages",
        "objective",
        "optimizer",
        "scheduler",
        "batches",
        "random",
        "guard",
        "settings",
        "step",
    }
    assert set(state) == held
    with pytest.raises(
        CheckpointError, match=r"averages of the widths \[\], not \[0.05\], .* begin with its first step"
    ):
        TrainState(make_experiment(), (0.05,)).load_state_dict(state)
    del state["power_averages"]  # as in checkpoints of earlier versions
    TrainState(make_experiment()).load_state_dict(state)


def test_a_second_run_in_the_folder_is_refused_and_disturbs_nothing(make_experiment, run_dir, tmp_path) -> None:
    refused, other = [], make_experiment()

    def second() -> None:
        try:
            train(other, run_dir, EVERY_FIVE)
        except InUseError as error:
            refused.append(error)

    def start() -> None:
        if not refused:
            thread = Thread(target=second)
            thread.start()
            thread.join()

    experiment = make_experiment()
    experiment.batches = DyingBatches(experiment.batches, 13, start)
    state = train(experiment, run_dir, EVERY_FIVE)
    assert len(refused) == 1
    assert_equal_states(state.state_dict(), train(make_experiment(), tmp_path / "alone", EVERY_FIVE).state_dict())
    assert_equal_states(train(make_experiment(), run_dir, EVERY_FIVE).state_dict(), state.state_dict())
