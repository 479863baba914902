"""Grids of times, against the values that the field uses."""

from typing import Any

import numpy as np
import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import SAMPLERS, SCHEDULES

SCHEDULE = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000))


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (dl.trailing, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
        (dl.leading, [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
        (dl.linspace, [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
    ],
)
def test_ten_of_a_thousand(grid, expected: list[int]) -> None:
    times = grid(SCHEDULE, 10)
    assert times.tolist() == expected
    assert times.dtype == torch.int64


def test_leading_with_the_offset_of_stable_diffusion() -> None:
    assert dl.leading(SCHEDULE, 4, offset=1).tolist() == [751, 501, 251, 1]


@pytest.mark.parametrize("grid", [dl.trailing, dl.leading, dl.linspace])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 13, 27, 64, 300, 999, 1000])
def test_any_number_of_steps_gives_that_many_decreasing_times(grid, steps: int) -> None:
    times = grid(SCHEDULE, steps)
    assert len(times) == steps
    assert (times.diff() < 0).all()
    assert times.min() >= 0
    assert times.max() <= 999


@pytest.mark.parametrize("steps", [3, 13, 16, 32, 64, 103, 160, 999])
def test_times_are_rounded_as_the_field_does(steps: int) -> None:
    """``round(i T / steps) - 1`` (arXiv 2305.08891, Table 2) and numpy's linspace, both rounding ties to even."""
    trailing = np.round(np.arange(1000, 0, -1000 / steps)).astype(int) - 1
    assert dl.trailing(SCHEDULE, steps).tolist() == trailing[:steps].tolist()
    assert dl.linspace(SCHEDULE, steps).tolist() == np.linspace(0, 999, steps).round()[::-1].astype(int).tolist()


def test_all_steps_is_every_step() -> None:
    assert dl.all_steps(SCHEDULE).tolist() == list(range(999, -1, -1))


def test_all_steps_refuses_another_number() -> None:
    with pytest.raises(ValueError, match="1000 calls, not eval_steps=10"):
        dl.all_steps(SCHEDULE, 10)


@pytest.mark.parametrize("end", [0.999, 14.6, 80.0])
def test_trailing_starts_exactly_at_the_last_time(end: float) -> None:
    """50 times a fiftieth of 0.999 is more than 0.999 in float64."""
    schedule = dl.EDMSchedule(sigma_max=end)
    assert all(dl.trailing(schedule, steps)[0] == end for steps in range(1, 200))


class OnMPS(torch.Tensor):
    """A tensor that says it is on a device without float64."""

    device = property(lambda self: torch.device("mps"))


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2s"])
@pytest.mark.parametrize("schedule", ["cosine", "rectified_flow", "edm"])
def test_times_are_float32_on_devices_without_float64(
    schedule: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Tensor.to`` refuses what PyTorch refuses there; there is no such device in the tests."""
    convert = torch.Tensor.to

    def to(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if arguments and isinstance(arguments[0], torch.device) and arguments[0].type == "mps":
            assert options.get("dtype", tensor.dtype) != torch.float64
            arguments = (tensor.dtype,)
        return convert(tensor, *arguments, **options)

    made = SCHEDULES[schedule]()
    predictor = dl.VPredictor(made)
    model = dl.IdealDenoiser(predictor, torch.zeros(1, 4), 0.5)
    built = SAMPLERS[sampler](model, made, predictor, eval_steps=4, grid=dl.karras, progress_bar=False).eval()
    x = torch.randn(2, 4).as_subclass(OnMPS)
    monkeypatch.setattr(torch.Tensor, "to", to)
    assert built(x).isfinite().all()
