"""Restarts, Langevin corrections and Euler-Maruyama against their formulas and laws."""

import math
import warnings
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import SCHEDULES, TinyNetwork

MEAN, STD = 0.75, 0.4


def gaussian(make, schedule: str = "cosine", **options) -> dl.Sampler:
    """A sampler with the exact denoiser of a Gaussian."""
    process = SCHEDULES[schedule]()
    predictor = dl.VPredictor(process)
    return make(
        dl.IdealDenoiser(predictor, torch.tensor([[MEAN]]), STD), process, predictor, progress_bar=False, **options
    ).eval()


def tiny(make, schedule: str = "cosine", **options) -> tuple[dl.Sampler, list[dl.NoiseLevel]]:
    process = SCHEDULES[schedule]()
    sampler = make(TinyNetwork().double(), process, dl.VPredictor(process), progress_bar=False, **options)
    return sampler, process.levels(torch.tensor([700, 600]))


@torch.no_grad()
def test_euler_maruyama_is_the_paper_s_reverse_diffusion() -> None:
    """``x_s = (2 - alpha_ts) x_t + sigma_ts^2 score + sigma_ts z``, with alpha_ts and sigma_ts of the schedule."""
    sampler, (t, s) = tiny(dl.EulerMaruyamaSampler)
    x, z = torch.randn(2, 2, 1, 8, 8, dtype=torch.float64)
    xs, _ = sampler.step(x, t, s, None, sampler.denoise, lambda *_: z)
    alpha, sigma = sampler.schedule.transition(s.t, t.t)
    score = -sampler.denoise(x, t).eps / t.sigma
    torch.testing.assert_close(xs, (2 - alpha) * x + sigma**2 * score + sigma * z)


@torch.no_grad()
def test_a_correction_is_a_langevin_step_of_the_paper_to_first_order() -> None:
    """``x + e score + sqrt(2 e) z`` with ``e = 2 (r |z| / |score|)^2``: the difference falls as r^3."""
    differences = []
    for ratio in (0.02, 0.01):
        sampler, (t, s) = tiny(dl.PredictorCorrectorSampler, ratio=ratio)
        plain, _ = tiny(dl.EulerMaruyamaSampler)
        x, z = torch.randn(2, 2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        xs, _ = plain.step(x, t, s, None, plain.denoise, lambda *_, z=z: z)
        score = -plain.denoise(xs, s).eps / s.sigma
        e = 2 * (ratio * z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)).square()[:, None, None, None]
        paper = xs + e * score + (2 * e).sqrt() * z
        corrected, _ = sampler.step(x, t, s, None, sampler.denoise, lambda *_, z=z: z)
        assert (corrected - xs).norm() > 100 * (corrected - paper).norm()
        differences.append((corrected - paper).norm().item())
    assert differences[0] / differences[1] == pytest.approx(8, rel=0.1)


def test_corrections_mend_the_error_of_the_predictor() -> None:
    """In 64 dimensions, from a spread that is half of the right one."""
    sampler = gaussian(dl.PredictorCorrectorSampler, corrections=150, ratio=0.1)
    t, s = sampler.schedule.levels(sampler.schedule.time(torch.tensor([-1.0, -0.999], dtype=torch.float64)))
    right = math.hypot(s.alpha * STD, s.sigma)
    x = s.alpha * MEAN + 0.5 * right * torch.randn(200, 64, dtype=torch.float64)
    x, _ = sampler.step(x, t, s, None, sampler.denoise, lambda *_: torch.randn_like(x))
    # the step size goes with the inverse square of the norm: a law of 64 dimensions is that of 66
    assert x.std().item() / right == pytest.approx(1, abs=1 / 64 + 4 / (2 * x.numel()) ** 0.5)
    assert x.mean().item() == pytest.approx(s.alpha * MEAN, abs=0.02)


def steps_of(sampler: dl.Sampler, steps: int) -> list[dl.NoiseLevel]:
    return sampler.schedule.levels(sampler.schedule.time(torch.linspace(-3, 5, steps + 1, dtype=torch.float64)))


@torch.no_grad()
def test_each_restart_contracts_the_error_as_its_noise_and_the_flow_do() -> None:
    """Gaussian data: noise to u and the exact flow back multiply an error by ``alpha_us sqrt(v_s / v_u)``."""
    error = 0.3
    for repetitions in (1, 3):
        restarts = [(repetitions, 60, 0.2, 1.5)]
        sampler, heun = gaussian(dl.RestartSampler, restarts=restarts), gaussian(dl.HeunSampler)
        (t, s), (u,) = (
            sampler.schedule.levels(sampler.schedule.time(-2 * torch.tensor(ratios, dtype=torch.float64).log()))
            for ratios in ([0.21, 0.2 - 1e-9], [1.5])
        )
        x = torch.full((1, 1), t.alpha * MEAN + error, dtype=torch.float64)
        before, _ = heun.step(x, t, s, None, heun.denoise, torch.zeros_like)
        after, _ = sampler.step(x, t, s, None, sampler.denoise, lambda *_: torch.zeros(1, 1, dtype=torch.float64))
        v_s, v_u = ((level.alpha * STD) ** 2 + level.sigma**2 for level in (s, u))
        factor = (u.alpha / s.alpha * math.sqrt(v_s / v_u)) ** repetitions
        assert factor < 0.5
        expected = factor * (before.item() - s.alpha * MEAN)
        assert after.item() - s.alpha * MEAN == pytest.approx(expected, rel=2e-3)


@torch.no_grad()
def test_restarts_happen_once_where_the_grid_passes_their_end() -> None:
    """Whatever the grid; calls: two a step, and two for each step of each repetition."""
    for steps in (3, 8, 40):
        sampler = gaussian(dl.RestartSampler, restarts=[(2, 3, 0.3, 1.0), (1, 5, 0.7, 4.0)])
        levels, calls = steps_of(sampler, steps), []

        def denoise(x: Tensor, level: dl.NoiseLevel, calls: list = calls, sampler=sampler) -> object:
            calls.append(level)
            return sampler.denoise(x, level)

        x = torch.randn(2, 1, dtype=torch.float64)
        for t, s in pairwise(levels):
            x, _ = sampler.step(x, t, s, None, denoise, lambda *_: torch.randn(2, 1, dtype=torch.float64))
        assert len(calls) == 2 * steps + 2 * (2 * 3 + 1 * 5)


def test_without_restarts_it_is_heun() -> None:
    x = torch.randn(3, 1, dtype=torch.float64)
    options = {"eval_steps": 9}
    restart, heun = gaussian(dl.RestartSampler, restarts=(), **options), gaussian(dl.HeunSampler, **options)
    assert torch.equal(restart(x), heun(x))


def test_the_churn_of_edm_is_that_of_the_steps_there_are() -> None:
    """It is not kept from construction, and a path that starts later is treated like the end of a whole one."""
    sampler = gaussian(dl.EDMStochasticSampler, churn=2.0, eval_steps=40)
    assert sampler.gamma == 2 / 40
    sampler.eval_steps = 10
    assert sampler.gamma == 2 / 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *parts: dl.RestartSampler(*parts, restarts=[(1, 3, 0.5, 0.5)]), "0 < low < high"),
        (lambda *parts: dl.RestartSampler(*parts, restarts=[(1, 0, 0.1, 0.5)]), "steps >= 1"),
        (lambda *parts: dl.PredictorCorrectorSampler(*parts, ratio=-0.1), r"ratio \(-0.1\)"),
        (lambda *parts: dl.EDMStochasticSampler(*parts, noise_scale=-1.0), r"noise_scale \(-1.0\)"),
        (lambda *parts: dl.EDMStochasticSampler(*parts, noisy=(50.0, 0.05)), r"noisy \(\(50.0, 0.05\)\) a range"),
        (lambda *parts: dl.SASolverSampler(*parts, tau=-1.0), r"tau \(-1.0\)"),
        (lambda *parts: dl.SASolverSampler(*parts, predictor_order=0), r"predictor_order \(0\)"),
    ],
)
def test_impossible_settings_are_named(make, message: str) -> None:
    schedule = SCHEDULES["cosine"]()
    with pytest.raises(ValueError, match=message):
        make(TinyNetwork(), schedule, dl.VPredictor(schedule))


def test_an_interval_that_no_step_reaches_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"no step of the grid goes to sigma / alpha <= 0.06, but to 0.\d+ at least"):
        gaussian(dl.RestartSampler, eval_steps=10, grid=dl.trailing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gaussian(dl.RestartSampler, eval_steps=10, grid=dl.karras)
