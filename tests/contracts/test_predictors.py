"""Laws of every predictor on every schedule."""

import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import CLAMPS, PREDICTORS, SCHEDULES

DEFINED = [
    (schedule, predictor)
    for schedule in SCHEDULES
    for predictor in PREDICTORS
    if (schedule, predictor) != ("zero_terminal_snr", "noise")
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


def test_noise_prediction_at_zero_snr_is_refused() -> None:
    with pytest.raises(ValueError, match="NoisePredictor is undefined at the schedule's last time"):
        dl.NoisePredictor(SCHEDULES["zero_terminal_snr"]())
