"""What is said about good and bad choices."""

from functools import partial

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.samplers.heun import trapezoid
from tests.catalogue import SCHEDULES, TinyNetwork

STABLE_DIFFUSION = SCHEDULES["scaled_linear"]()
ZERO_SNR = SCHEDULES["zero_terminal_snr"]()


def names(*args, **options) -> list[str]:
    return [finding.name for finding in dl.lint(*args, **options)]


def test_the_recipes_and_the_readme_have_nothing_to_say() -> None:
    """Cosine betas and v, with the default grid; flow matching; zero terminal SNR."""
    for schedule, predictor in [
        (SCHEDULES["cosine"](), dl.VPredictor),
        (SCHEDULES["continuous_cosine"](), dl.VPredictor),
        (SCHEDULES["laplace"](), dl.VPredictor),
        (dl.RectifiedFlowSchedule(), dl.FlowPredictor),
        (ZERO_SNR, dl.VPredictor),
        (ZERO_SNR, dl.TargetPredictor),
    ]:
        assert names(schedule, predictor) == []
        assert names(schedule, predictor(schedule), eval_steps=50) == []


def test_defaults_of_the_papers_have_a_note_at_most() -> None:
    """DDPM, Score SDE and EDM leave 0.6 to 2 % of signal, which their papers knew."""
    for schedule, predictor in [
        (SCHEDULES["linear"](), dl.NoisePredictor),
        (dl.VariancePreservingSchedule(), dl.NoisePredictor),
        (dl.VarianceExplodingSchedule(), dl.ScorePredictor),
        (dl.EDMSchedule(), dl.EDMPredictor),
    ]:
        assert [(f.name, f.severity) for f in dl.lint(schedule, predictor, eval_steps=50)] == [("terminal SNR", "note")]


def test_signal_at_the_last_time_is_measured() -> None:
    (finding,) = dl.lint(STABLE_DIFFUSION, dl.VPredictor, eval_steps=50)
    assert (finding.name, finding.severity) == ("terminal SNR", "warning")
    alpha = STABLE_DIFFUSION.alpha(torch.tensor(999)).item()
    assert f"alpha at the last time (999) is {alpha:.3g}" in finding.message
    assert "6.8 %" in finding.message
    assert "2305.08891" in finding.message
    assert "rescale_zero_terminal_snr" in finding.remedy
    assert str(finding) == f"warning: terminal SNR: {finding.message}. {finding.remedy}"


@pytest.mark.parametrize("predictor", [dl.NoisePredictor, dl.ScorePredictor, partial(dl.NoisePredictor, clamp=None)])
def test_what_cannot_be_made_is_a_finding(predictor) -> None:
    (finding,) = dl.lint(ZERO_SNR, predictor, eval_steps=10)
    assert (finding.name, finding.severity) == ("undefined prediction", "error")
    assert "alpha = 0 and sigma = 1" in finding.message


def test_a_predictor_of_another_schedule() -> None:
    assert names(SCHEDULES["cosine"](), dl.VPredictor(SCHEDULES["cosine"]())) == ["another schedule"]


def test_an_amplified_error_is_measured() -> None:
    schedule = SCHEDULES["cosine"]()
    (finding,) = dl.lint(schedule, dl.NoisePredictor)
    ratio = (schedule.sigma(torch.tensor(999)) / schedule.alpha(torch.tensor(999))).item()
    assert finding.name == "amplified error"
    assert f"{ratio:.3g} times as large" in finding.message
    assert names(schedule, dl.NoisePredictor(schedule, clamp=dl.StaticClamp())) == []
    assert names(dl.VarianceExplodingSchedule(sigma_max=2000.0), dl.EDMPredictor) == []
    assert names(dl.VarianceExplodingSchedule(sigma_max=2000.0), dl.ScorePredictor) == ["amplified error"]


def test_steps_that_float32_merges_are_counted() -> None:
    """Against the cumulative product of alpha^2 that other libraries keep."""
    betas = torch.cat([torch.full((40,), 1e-8), torch.linspace(1e-4, 0.9, 60)]).double()
    table = (1 - betas).cumprod(0).float()
    lost = int((table.diff() >= 0).sum())
    assert lost > 20
    (finding,) = dl.lint(dl.DiscreteGaussianSchedule(betas), dl.VPredictor, eval_steps=10)
    assert finding.name == "float32 table"
    assert f"alpha^2 of {lost} of 100 times" in finding.message


@pytest.mark.parametrize("schedule", ["zero_terminal_snr", "rectified_flow", "continuous_cosine"])
def test_a_grid_that_never_reaches_the_last_time(schedule: str) -> None:
    made = SCHEDULES[schedule]()
    (finding,) = dl.lint(made, dl.VPredictor, eval_steps=10, grid=dl.leading)
    assert (finding.name, finding.severity) == ("last time", "warning")
    start = dl.leading(made, 10)[0].double()
    signal = 100 * (made.alpha(start) / made.sigma(start)).item()
    assert f"leading with eval_steps=10 starts at {start.item():g} and never reaches" in finding.message
    assert f"{signal:.3g} % signal" in finding.message
    for grid in (dl.trailing, dl.linspace, dl.karras, dl.exponential, dl.beta, dl.align_your_steps):
        assert names(made, dl.VPredictor, eval_steps=10, grid=grid) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_steps": 0}, r"eval_steps (0)"),
        ({"eval_steps": 1001}, "does not give strictly decreasing"),
        ({"eval_steps": 10, "grid": dl.all_steps}, "not eval_steps=10"),
        ({"eval_steps": 10, "grid": dl.at_times([900, 1])}, "2 times, not eval_steps=10"),
        ({"eval_steps": 1, "grid": lambda schedule, steps: torch.tensor([1000.0])}, "strictly decreasing times in"),
    ],
)
def test_an_impossible_grid_is_a_finding(options, message: str) -> None:
    (finding,) = dl.lint(SCHEDULES["cosine"](), dl.VPredictor, **options)
    assert (finding.name, finding.severity) == ("grid", "error")
    assert message in finding.message


def test_the_remedy_is_not_the_grid_that_is_taken() -> None:
    options = {"eval_steps": 2, "sampler": dl.HeunSampler}
    for grid, named in ((dl.trailing, True), (dl.karras, False)):
        (finding,) = dl.lint(SCHEDULES["cosine"](), dl.VPredictor, grid=grid, **options)
        assert ("karras" in finding.remedy) is named


@pytest.mark.parametrize("sampler", [dl.HeunSampler, dl.PLMSSampler, dl.PNDMSampler])
def test_a_step_that_is_too_long_for_a_solver_is_measured(sampler) -> None:
    schedule = SCHEDULES["cosine"]()
    (finding,) = dl.lint(schedule, dl.VPredictor, eval_steps=16, sampler=sampler)
    assert (finding.name, finding.severity) == ("long step", "warning")
    t, s = schedule.levels(dl.trailing(schedule, 16)[:2])
    before, after = t.sigma / t.alpha, s.sigma / s.alpha
    assert f"from {before:.3g} times as much noise as signal to {after:.3g}" in finding.message
    for options in ({"grid": dl.karras}, {"eval_steps": 1000}):
        assert names(schedule, dl.VPredictor, **{"eval_steps": 16, "sampler": sampler, **options}) == []
    for other in (dl.DDIMSampler, dl.DDPMSampler, dl.DPMSolverPP2MSampler, dl.UniPCSampler):
        assert names(schedule, dl.VPredictor, eval_steps=16, sampler=other) == []


def test_heun_s_first_step_extrapolates_as_the_lint_says() -> None:
    """Its mean of the estimates x0_t and x0_s is x0_t + (r - 1) / 2 (x0_s - x0_t)."""
    schedule = SCHEDULES["cosine"]()
    t, s = schedule.levels(torch.tensor([999, 936], dtype=torch.float64))
    r = (t.sigma / t.alpha) / (s.sigma / s.alpha)
    xt = torch.randn(3, dtype=torch.float64)
    estimates = {t.t: torch.tensor([0.1, 0.2, 0.3]).double(), s.t: torch.tensor([0.2, 0.1, 0.5]).double()}

    def denoise(x, level):
        x0 = estimates[level.t]
        return x0, (x - level.alpha * x0) / level.sigma, None

    xs, _ = trapezoid(xt, t, s, denoise)
    x0 = estimates[t.t] + (r - 1) / 2 * (estimates[s.t] - estimates[t.t])
    eps = (xt - t.alpha * estimates[t.t]) / t.sigma
    torch.testing.assert_close(xs, s.alpha * x0 + s.sigma * eps)


def test_a_sampler_that_cannot_be_made_is_a_finding() -> None:
    (finding,) = dl.lint(SCHEDULES["cosine"](), dl.VPredictor, eval_steps=8, sampler=partial(dl.DDIMSampler, eta=-1.0))
    assert (finding.name, finding.severity) == ("sampler", "error")


def test_a_sampler_s_choice_the_worst_first() -> None:
    predictor = dl.NoisePredictor(STABLE_DIFFUSION)
    s = dl.DDIMSampler(TinyNetwork(), STABLE_DIFFUSION, predictor, eval_steps=20, grid=dl.leading)
    assert names(s.schedule, s.predictor, eval_steps=s.eval_steps, grid=s.grid) == ["terminal SNR", "last time"]
    linear = SCHEDULES["linear"]()
    assert names(linear, dl.NoisePredictor, eval_steps=20, grid=dl.leading) == ["last time", "terminal SNR"]


def test_nothing_is_raised_for_any_pair() -> None:
    for schedule in SCHEDULES.values():
        for predictor in (dl.NoisePredictor, dl.ScorePredictor, dl.FlowPredictor, dl.EDMPredictor):
            for grid in (dl.trailing, dl.leading, dl.all_steps):
                for finding in dl.lint(schedule(), predictor, eval_steps=50, grid=grid):
                    assert finding.severity in ("error", "warning", "note")
                    assert finding.remedy


@pytest.mark.parametrize(
    ("schedule", "options"), [("edm", {"grid": dl.trailing}), ("rectified_flow", {"eval_steps": 1})]
)
def test_samples_with_too_little_spread_are_found(schedule: str, options: dict) -> None:
    """Steps even in EDM's noise, and a single step, whose sample is the mean of the data."""
    made = SCHEDULES[schedule]()
    found = dl.lint(made, dl.VPredictor, **{"eval_steps": 18, "sampler": dl.HeunSampler, **options})
    (finding,) = [one for one in found if one.name == "lost spread"]
    assert finding.severity == "warning"
    assert "where that of the data is 1" in finding.message
