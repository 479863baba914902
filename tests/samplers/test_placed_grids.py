"""Grids that place noise levels, against the formulas and tables that others give."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.samplers.beta_grid import beta_quantile
from diffusion_labs.samplers.grids import LEAST_LOG_SNR
from tests.catalogue import SCHEDULES

STABLE_DIFFUSION = SCHEDULES["scaled_linear"]()
GRIDS = {
    "exponential": dl.exponential,
    "polyexponential": partial(dl.exponential, rho=1.5),
    "beta": dl.beta,
    "beta_skewed": partial(dl.beta, a=0.5, b=0.8),
    "align_your_steps": dl.align_your_steps,
    "align_your_steps_xl": partial(dl.align_your_steps, sigmas=dl.AYS_STABLE_DIFFUSION_XL),
    "align_your_steps_video": partial(dl.align_your_steps, sigmas=dl.AYS_STABLE_VIDEO_DIFFUSION),
}


def ratio(schedule: dl.Schedule, times: Tensor) -> Tensor:
    return schedule.sigma(times) / schedule.alpha(times)


# Further tables and shifts of a schedule that is here anyway; `make test-slow` has them too.
MORE_TABLES = ("linear", "quadratic", "sigmoid", "shifted_cosine", "shifted_flow", "cosine_flow", "normal")


@pytest.mark.parametrize(
    "schedule", [pytest.param(name, marks=[pytest.mark.slow] if name in MORE_TABLES else []) for name in SCHEDULES]
)
@pytest.mark.parametrize("grid", GRIDS)
def test_any_number_of_steps_from_the_last_time_downwards(grid: str, schedule: str) -> None:
    made = SCHEDULES[schedule]()
    for steps in (1, 2, 3, 7, 10, 64, 1000):
        times = GRIDS[grid](made, steps)
        assert times.shape == (steps,)
        assert times[0] == made.terminal
        assert (times.diff() < 0).all()
        assert times[-1] >= made.first * (1 - 1e-9) or steps == 1


@pytest.mark.parametrize("schedule", ["scaled_linear", "cosine", "continuous_vp", "variance_exploding", "edm"])
@pytest.mark.parametrize("rho", [0.7, 1.0, 2.0])
def test_exponential_is_k_diffusion_s(schedule: str, rho: float) -> None:
    """``sigmas = exp(ramp (log sigma_max - log sigma_min) + log sigma_min)`` with ``ramp = linspace(1, 0)^rho``."""
    made = SCHEDULES[schedule]()
    times = dl.exponential(made, 30, rho=rho)
    levels = ratio(made, times)
    low, high = ratio(made, torch.tensor([made.first, made.terminal], dtype=torch.float64)).log().tolist()
    expected = np.exp(np.linspace(1, 0, 30) ** rho * (high - low) + low)
    np.testing.assert_allclose(levels.numpy(), expected, rtol=1e-7)


def test_exponential_with_rho_one_is_uniform_log_snr() -> None:
    for schedule in SCHEDULES.values():
        made = schedule()
        assert torch.equal(dl.exponential(made, 17), dl.uniform_log_snr(made, 17))


@pytest.mark.parametrize("a", [0.2, 0.6, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("b", [0.3, 0.6, 1.0, 7.5, 80.0])
def test_quantiles_of_the_beta_distribution(a: float, b: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is the independent implementation")
    p = torch.cat([torch.linspace(0, 1, 101), torch.tensor([1e-6, 1e-3, 1 - 1e-3])]).double()
    np.testing.assert_allclose(beta_quantile(p, a, b).numpy(), stats.beta.ppf(p.numpy(), a, b), rtol=0, atol=1e-9)


def test_beta_places_times_at_quantiles() -> None:
    """Beta(1, 1) is even; Beta(1/2, 1/2) has the quantiles sin^2(pi p / 2)."""
    schedule = dl.EDMSchedule(0.5, 20.0)
    p = torch.linspace(1, 0, 40, dtype=torch.float64)
    torch.testing.assert_close(dl.beta(schedule, 40, a=1.0, b=1.0), 0.5 + 19.5 * p)
    torch.testing.assert_close(dl.beta(schedule, 40, a=0.5, b=0.5), 0.5 + 19.5 * torch.sin(torch.pi * p / 2) ** 2)


@pytest.mark.parametrize(
    ("table", "theirs", "schedule"),
    [
        (dl.AYS_STABLE_DIFFUSION, "StableDiffusionSigmas", STABLE_DIFFUSION),
        (dl.AYS_STABLE_DIFFUSION_XL, "StableDiffusionXLSigmas", STABLE_DIFFUSION),
        (dl.AYS_STABLE_VIDEO_DIFFUSION, "StableDiffusionVideoSigmas", dl.EDMSchedule(0.002, 700.0)),
    ],
)
def test_align_your_steps_has_the_published_levels(table, theirs: str, schedule: dl.Schedule) -> None:
    """Ten steps are the table, and others the even interpolation of its logarithm, last level left out."""
    utils = pytest.importorskip("diffusers.schedulers", reason="diffusers has the tables, at whole steps")
    published = utils.AysSchedules[theirs][:-1]
    grid = partial(dl.align_your_steps, sigmas=table)
    np.testing.assert_allclose(ratio(schedule, grid(schedule, 10)).numpy(), published, rtol=0.015, atol=5e-4)
    for steps in (4, 25):
        knots = np.log(table[::-1])
        expected = np.exp(np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, 11), knots))[::-1][:-1]
        np.testing.assert_allclose(ratio(schedule, grid(schedule, steps)).numpy(), expected, rtol=2e-4)


def test_align_your_steps_has_the_published_times() -> None:
    utils = pytest.importorskip("diffusers.schedulers", reason="diffusers has the tables")
    times = dl.align_your_steps(STABLE_DIFFUSION, 10)
    expected = torch.tensor(utils.AysSchedules["StableDiffusionTimesteps"]).double()
    assert (times - expected).abs().max() <= 1


def test_given_times() -> None:
    schedule = SCHEDULES["linear"]()
    grid = dl.at_times([999, 500, 20])
    assert grid(schedule, 3).tolist() == [999, 500, 20]
    assert grid(schedule, 3).dtype == torch.int64
    assert dl.at_times([999, 500.5])(schedule, 2).tolist() == [999, 500.5]
    assert dl.at_times([1.0, 0.1])(SCHEDULES["rectified_flow"](), 2).tolist() == [1.0, 0.1]
    sampler = dl.DDIMSampler(torch.nn.Identity(), schedule, dl.NoisePredictor(schedule), eval_steps=3, grid=grid)
    assert sampler.times().tolist() == [999, 500, 20]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: dl.at_times([1, 2]), r"strictly decreasing times; got \[1, 2\]"),
        (lambda s: dl.at_times([]), "strictly decreasing"),
        (lambda s: dl.at_times([5, 1])(s, 3), "2 times, not eval_steps=3; give eval_steps=2"),
        (lambda s: dl.at_times([1000, 1])(s, 2), r"goes from 1000 to 1, but .* in \(-1, 999\]"),
        (lambda s: dl.at_times([5, -1])(s, 2), "clean data"),
        (lambda s: dl.exponential(s, 5, rho=0.0), r"rho \(0.0\)"),
        (lambda s: dl.beta(s, 5, a=0.0), r"a \(0.0\) and b \(0.6\)"),
        (lambda s: dl.align_your_steps(s, 5, sigmas=[1.0, 2.0]), "strictly decreasing positive"),
        (lambda s: dl.align_your_steps(s, 5, sigmas=[1.0, 0.0]), "strictly decreasing positive"),
    ],
)
def test_impossible_grids_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(SCHEDULES["linear"]())


@pytest.mark.parametrize("grid", [dl.karras, dl.karras_flow, dl.uniform_log_snr])
@pytest.mark.parametrize("schedule", ["rectified_flow", "shifted_flow", "edm"])
def test_pure_noise_stands_for_the_noisiest_level_and_costs_no_step(grid, schedule: str) -> None:
    """Two steps reach the first time, and the others are where they would be if the last time had that level."""
    made = SCHEDULES[schedule]()
    last = made.log_snr(torch.tensor(made.first, dtype=torch.float64))
    for steps in (2, 3, 10):
        times = grid(made, steps)
        assert len(times) == steps
        assert times[0] == made.terminal
        torch.testing.assert_close(made.log_snr(times[-1]), last)
    even = torch.linspace(LEAST_LOG_SNR, last.item(), 10, dtype=torch.float64)
    torch.testing.assert_close(made.log_snr(dl.uniform_log_snr(made, 10))[1:], even[1:])


def test_the_default_grid_is_that_of_the_schedule_s_paper() -> None:
    for name, grid in (("edm", dl.karras), ("cosine", dl.trailing), ("rectified_flow", dl.trailing)):
        schedule = SCHEDULES[name]()
        assert dl.HeunSampler(torch.nn.Identity(), schedule, dl.VPredictor(schedule), eval_steps=8).grid is grid
    edm = SCHEDULES["edm"]()
    assert "lost spread" not in [one.name for one in dl.lint(edm, dl.VPredictor, eval_steps=18, sampler=dl.HeunSampler)]
