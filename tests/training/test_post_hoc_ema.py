"""Power-function averages: tracked, stored, and made again for widths that were not tracked."""

import math
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion_labs.training import CheckpointError, PowerEMA, TrainOptions, post_hoc_ema, save_checkpoint
from diffusion_labs.training.ema_snapshots import SNAPSHOTS, snapshot_of
from diffusion_labs.training.power_profile import PowerProfile, combination, gamma_of

WIDTHS = (0.05, 0.1)


STEP = torch.arange(1, 1001, dtype=torch.float64)[:, None]
PHASE = torch.arange(6, dtype=torch.float64)
DRIFTING = torch.tanh(STEP / 40 - PHASE / 2) + 0.3 * torch.sin(STEP * (1.3 + PHASE)) + (STEP / 300) ** 2
"""Weights after each update: they go from one place to another, and shake."""


def direct(step: int, sigma_rel: float) -> Tensor:
    """The average as it is defined: the sum over all updates, each with the integral of the profile over it."""
    integral = (torch.arange(step + 1, dtype=torch.float64) / step) ** (gamma_of(sigma_rel) + 1)
    return integral.diff() @ DRIFTING[:step]


def bound(step: int, sigma_rel: float, distance: float) -> Tensor:
    """Cauchy and Schwarz: what a profile at a distance from the right one can change, as both have the integral 1."""
    gamma = gamma_of(sigma_rel)
    norm = ((gamma + 1) ** 2 / (2 * gamma + 1) / step) ** 0.5
    return distance * norm * (DRIFTING[:step] - direct(step, sigma_rel)).norm(dim=0) + 1e-12


class Model(nn.Module):
    """Weights, tied ones, frozen ones and a buffer."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, dtype=dtype))
        self.tied = nn.Linear(6, 1, bias=False)
        self.tied.weight = self.weight
        self.frozen = nn.Parameter(torch.full((2,), 0.1), requires_grad=False)
        self.register_buffer("count", torch.zeros(1))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[torch.dtype], tuple[Path, dict]]:
    """Makes a folder with snapshots at 30, 60, ..., 180 of a scripted training, and has what was tracked at each."""
    made = {}

    def make(dtype: torch.dtype) -> tuple[Path, dict]:
        if dtype not in made:
            folder = tmp_path_factory.mktemp("stage")
            made[dtype] = folder, scripted_training(folder, Model(dtype), every=30, steps=180)
        return made[dtype]

    return make


def scripted_training(folder: Path, model: Model, *, every: int, steps: int) -> dict[tuple[int, float], dict]:
    averages = [PowerEMA(model, width) for width in (*WIDTHS, 0.07)]
    tracked = {}
    for step in range(1, steps + 1):
        model.weight.data.copy_(DRIFTING[step - 1])
        model.count.fill_(step)
        for average in averages:
            average.update(model)
        if step % every == 0:
            save_checkpoint(folder / SNAPSHOTS, step, snapshot_of(averages[:2]), keep=1, keep_every=1)
            for average in averages:
                state = average.model.state_dict()
                tracked[step, average.sigma_rel] = {name: value.clone() for name, value in state.items()}
    return tracked


@pytest.mark.parametrize("sigma_rel", [1e-3, 0.01, 0.05, 0.1, 0.2, 0.28, 12**-0.5])
def test_the_width_is_the_standard_deviation_of_the_profile(sigma_rel: float) -> None:
    """By numerical integration of the moments of tau, over ``v = tau^(gamma + 1)``."""
    gamma = gamma_of(sigma_rel)
    v = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000  # equal shares of the profile
    tau = v ** (1 / (gamma + 1))
    assert tau.std(correction=0).item() == pytest.approx(sigma_rel, rel=1e-4)
    assert gamma >= 0


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.25, 12**-0.5])
def test_what_is_tracked_is_the_sum_over_the_profile(sigma_rel: float) -> None:
    model = Model()
    average = PowerEMA(model, sigma_rel)
    for step in range(1, 151):
        model.weight.data.copy_(DRIFTING[step - 1])
        average.update(model)
        if step in (1, 2, 17, 150):
            torch.testing.assert_close(average.model.weight.data, direct(step, sigma_rel), rtol=0, atol=1e-13)


def every(step: int, last: int = 1000) -> list[PowerProfile]:
    return [PowerProfile(at, width) for at in range(step, last + 1, step) for width in WIDTHS]


def sampled(profiles: Sequence[PowerProfile], last: int = 1000, points: int = 20_000) -> Tensor:
    """Profiles on the midpoints of a fine grid over the time, one a column."""
    tau = (torch.arange(points, dtype=torch.float64) + 0.5) * last / points
    columns = []
    for step, sigma_rel in profiles:
        gamma = gamma_of(sigma_rel)
        columns.append((gamma + 1) / step * (tau / step).clamp(max=1) ** gamma * (tau <= step))
    return torch.stack(columns, 1) * (last / points) ** 0.5  # so that sums of squares are integrals


@pytest.mark.parametrize("sigma_rel", [0.03, 0.07, 0.2])
def test_the_combination_is_the_least_squares_one(sigma_rel: float) -> None:
    """Against a solver for matrices, on profiles drawn over a grid, with the last coefficient eliminated."""
    profiles, wanted = every(125), PowerProfile(1000, sigma_rel)
    drawn, target = sampled(profiles), sampled([wanted])
    rest = torch.linalg.lstsq(drawn[:, :-1] - drawn[:, -1:], target - drawn[:, -1:]).solution[:, 0]
    x, distance = combination(profiles, wanted)
    torch.testing.assert_close(torch.tensor(x[:-1], dtype=torch.float64), rest, rtol=1e-3, atol=1e-4)
    assert sum(x) == pytest.approx(1, abs=1e-12)
    left = drawn @ torch.tensor(x, dtype=torch.float64)[:, None] - target
    assert (left.norm() / target.norm()).item() == pytest.approx(distance, rel=1e-2)

    plain = torch.linalg.lstsq(drawn, target).solution  # of EDM2's Algorithm 3: solved, then divided by the sum
    assert left.norm() <= (drawn @ (plain / plain.sum()) - target).norm() * (1 + 1e-6)


def test_a_width_in_between_comes_nearer_with_more_snapshots() -> None:
    """Against the direct sum: at most what the distance of the profiles allows, which is of second order."""
    distances = []
    for count in (10, 20, 40, 100):
        x, distance = combination(every(1000 // count), PowerProfile(1000, 0.07))
        profiles = zip(x, every(1000 // count), strict=True)
        made = sum(coefficient * direct(int(step), width) for coefficient, (step, width) in profiles)
        assert ((made - direct(1000, 0.07)).abs() <= bound(1000, 0.07, distance)).all()
        distances.append((count, distance))
    orders = [math.log(later / earlier) / math.log(a / b) for (a, earlier), (b, later) in pairwise(distances)]
    assert orders == sorted(orders)
    assert orders[-1] == pytest.approx(2, abs=0.05)
    assert distances[-1][1] < 1.5e-4


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [4, 50, 200])
def test_a_tracked_average_is_itself(width: float, count: int) -> None:
    profiles = every(1000 // count)
    x, distance = combination(profiles, PowerProfile(1000, width))
    expected = [float(profile == PowerProfile(1000, width)) for profile in profiles]
    assert x == pytest.approx(expected, abs=1e-9)
    assert distance < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [90, None])
def test_snapshots_give_back_what_was_tracked(stages, dtype: torch.dtype, step: int | None) -> None:
    """A width that they hold, to the last digits; frozen weights and buffers to the bit; tied weights tied."""
    folder, tracked = stages(dtype)
    for width in WIDTHS:
        found, expected = post_hoc_ema(folder, sigma_rel=width, step=step), tracked[step or 180, width]
        torch.testing.assert_close(found["weight"], expected["weight"], rtol=0, atol=4 * torch.finfo(dtype).eps)
        assert found.keys() == expected.keys()
        assert torch.equal(found["frozen"], expected["frozen"])
        assert torch.equal(found["count"], expected["count"])
        assert torch.equal(found["tied.weight"], found["weight"])
        Model(dtype).load_state_dict(found)


def test_snapshots_give_a_width_that_was_not_stored(stages) -> None:
    """As it was tracked at the last step, and at one before, of which no later snapshot tells."""
    folder, tracked = stages(torch.float64)
    for step in (120, 180):
        profiles = [PowerProfile(at, width) for at in range(30, step + 1, 30) for width in WIDTHS]
        _, distance = combination(profiles, PowerProfile(step, 0.07))
        error = post_hoc_ema(folder, sigma_rel=0.07, step=step)["weight"] - tracked[step, 0.07]["weight"]
        assert distance < 0.04
        assert (error.abs() <= bound(step, 0.07, distance)).all()


def test_a_width_that_the_snapshots_cannot_give_is_warned_of(stages) -> None:
    with pytest.warns(UserWarning, match=r"sigma_rel 0.01 at step 180 .* roughly: its profile is off by \d\d%"):
        post_hoc_ema(stages(torch.float64)[0], sigma_rel=0.01)


def test_mistakes_are_named(stages, tmp_path: Path) -> None:
    folder = shutil.copytree(stages(torch.float64)[0], tmp_path / "stage")
    for width in (0.0, -0.1, 0.3, float("nan")):
        with pytest.raises(ValueError, match=r"sigma_rel \(.*\) must be in \(0, 0.2887\]"):
            post_hoc_ema(folder, sigma_rel=width)
    for step in (0, 31, 210):
        with pytest.raises(ValueError, match=rf"step \({step}\) must be that of a snapshot in .*: 30, 60, .*180"):
            post_hoc_ema(folder, sigma_rel=0.1, step=step)
    with pytest.raises(CheckpointError, match="has no snapshots of averages; train with --ema-snapshot-every"):
        post_hoc_ema(tmp_path, sigma_rel=0.1)
    damaged = folder / SNAPSHOTS / "step-00000060"
    content = bytearray((damaged / "sigma_rel-0.05.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "sigma_rel-0.05.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"sigma_rel-0.05.safetensors is damaged.*; remove .*60 to do without"):
        post_hoc_ema(folder, sigma_rel=0.1)
    post_hoc_ema(folder, sigma_rel=0.1, step=30)
    for change, message in (
        ({"ema_snapshot_every": 0}, r"ema_snapshot_every \(0\) must be at least 1"),
        ({"ema_sigma_rel": ()}, "must be one width or several that differ"),
        ({"ema_sigma_rel": (0.1, 0.1)}, "must be one width or several that differ"),
        ({"ema_sigma_rel": (0.1, 0.5)}, r"sigma_rel \(0.5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainOptions(**change)
