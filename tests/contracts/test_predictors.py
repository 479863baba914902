"""Laws of every predictor on every schedule."""

import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import CLAMPS, PREDICTORS, SCHEDULES


def ends_in_noise(schedule: dl.Schedule) -> bool:
    return schedule.alpha(torch.tensor([schedule.terminal], dtype=torch.float64)).item() == 0


ZERO_SNR = [name for name, build in SCHEDULES.items() if ends_in_noise(build())]
DEFINED = [
    (schedule, predictor)
    for schedule in SCHEDULES
    for predictor in PREDICTORS
    if not (schedule in ZERO_SNR and predictor in ("noise", "score"))
]


@pytest.fixture(params=DEFINED, ids="-".join)
def predictor(request: pytest.FixtureRequest) -> dl.Predictor:
    schedule, name = request.param
    return PREDICTORS[name](SCHEDULES[schedule]())


def data(schedule: dl.Schedule, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    t = torch.linspace(schedule.first, schedule.terminal, 20, dtype=torch.float64)
    x0, noise = torch.randn(2, 20, 3, dtype=dtype)
    return x0, noise, t, schedule.q_sample(x0, noise, t)


def test_denoising_the_target_gives_back_data_and_noise(predictor: dl.Predictor) -> None:
    x0, noise, t, xt = data(predictor.schedule)
    y = predictor.target(x0, noise, t)
    denoised = predictor.denoise(y, xt, t)
    torch.testing.assert_close(denoised.x0, x0, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(denoised.eps, noise, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(predictor.predict_x0(y, xt, t), denoised.x0)
    torch.testing.assert_close(predictor.predict_noise(y, xt, t), denoised.eps)


def test_predictions_convert_into_each_other(predictor: dl.Predictor) -> None:
    x0, noise, t, xt = data(predictor.schedule)
    y = predictor.target(x0, noise, t)
    for other in (dl.VPredictor(predictor.schedule), dl.TargetPredictor(predictor.schedule)):
        converted = predictor.convert(y, xt, t, to=other)
        torch.testing.assert_close(converted, other.target(x0, noise, t), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(other.convert(converted, xt, t, to=predictor), y, rtol=1e-6, atol=1e-8)


def test_the_prediction_of_an_estimate_says_that_estimate(predictor: dl.Predictor) -> None:
    x0, _, t, xt = data(predictor.schedule)
    y = predictor.prediction_of(x0, xt, t)
    torch.testing.assert_close(predictor.predict_x0(y, xt, t), x0, rtol=1e-7, atol=1e-8)


def test_a_gradient_added_to_the_score_moves_the_noise_and_leaves_xt(predictor: dl.Predictor) -> None:
    """The score is -eps / sigma. Pure noise says nothing about the data, so nothing is added there."""
    x0, noise, t, xt = data(predictor.schedule)
    gradient = torch.randn_like(xt)
    y = predictor.target(x0, noise, t)
    moved = predictor.denoise(predictor.add_to_score(y, gradient, t), xt, t)
    level = predictor.schedule.at(t, xt)
    shift = torch.where(level.alpha == 0, 0, level.sigma * gradient)
    torch.testing.assert_close(moved.eps, noise - shift, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(level.alpha * moved.x0 + level.sigma * moved.eps, xt, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("clamp", CLAMPS)
def test_any_prediction_gives_a_pair_that_satisfies_the_process(predictor: dl.Predictor, clamp: str) -> None:
    _, _, t, xt = data(predictor.schedule)
    for clamped in (None, CLAMPS[clamp]()):
        predictor.clamp = clamped
        x0, eps = predictor.denoise(torch.randn_like(xt), xt, t)
        level = predictor.schedule.at(t, xt)
        torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, xt, rtol=1e-7, atol=1e-8)
    assert x0.abs().max() <= 1


def test_a_squared_error_converts_to_that_of_the_clean_data(predictor: dl.Predictor) -> None:
    x0, noise, t, xt = data(predictor.schedule)
    y = predictor.target(x0, noise, t)
    wrong = y + 0.1 * torch.randn_like(y)
    error_x0 = (predictor.predict_x0(wrong, xt, t) - x0) ** 2
    scale = predictor.x0_error_scale(t, xt)
    torch.testing.assert_close(scale * (wrong - y) ** 2, error_x0, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", ZERO_SNR)
@pytest.mark.parametrize("predictor", ["noise", "score"])
def test_noise_prediction_at_zero_snr_is_refused(schedule: str, predictor: str) -> None:
    with pytest.raises(ValueError, match="Predictor is undefined at the schedule's last time"):
        PREDICTORS[predictor](SCHEDULES[schedule]())


def test_edm_is_its_preconditioning() -> None:
    """``x0 = c_skip x + c_out F`` with Table 1 of the paper, for alpha = 1."""
    schedule = dl.EDMSchedule()
    predictor = dl.EDMPredictor(schedule, sigma_data=0.7)
    sigma = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
    x, f = torch.randn(2, 4, 3, dtype=torch.float64)
    c_skip = (0.7**2 / (sigma**2 + 0.7**2))[:, None]
    c_out = (sigma * 0.7 / (sigma**2 + 0.7**2).sqrt())[:, None]
    torch.testing.assert_close(predictor.predict_x0(f, x, sigma), c_skip * x + c_out * f)


def test_edm_of_unit_data_on_a_variance_preserving_schedule_is_v() -> None:
    schedule = SCHEDULES["cosine"]()
    edm, v = dl.EDMPredictor(schedule, sigma_data=1.0), dl.VPredictor(schedule)
    x0, noise, t, _ = data(schedule)
    torch.testing.assert_close(edm.target(x0, noise, t), -v.target(x0, noise, t))


def test_a_score_is_the_gradient_of_the_log_density() -> None:
    schedule = dl.VarianceExplodingSchedule()
    x0, noise, t, xt = data(schedule)
    level = schedule.at(t, xt)
    point = xt.clone().requires_grad_()
    density = torch.distributions.Normal(level.alpha * x0, level.sigma).log_prob(point).sum()
    (score,) = torch.autograd.grad(density, point)
    torch.testing.assert_close(dl.ScorePredictor(schedule).target(x0, noise, t), score)
