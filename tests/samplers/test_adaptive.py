"""The adaptive solver: its error follows its tolerance, and every sample has its own steps."""

import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import PREDICTORS, SCHEDULES
from tests.samplers.test_order import MEANS, STD, reference, start, uniform_in_log_snr


def build(tolerance: float, schedule: str = "cosine", predictor: str = "v", **options) -> dl.AdaptiveSampler:
    made = SCHEDULES[schedule]()
    prediction = PREDICTORS[predictor](made)
    model = dl.IdealDenoiser(prediction, MEANS, STD, [0.5, 0.3, 0.2])
    return dl.AdaptiveSampler(
        model, made, prediction, rtol=tolerance, atol=tolerance, progress_bar=False, **options
    ).eval()


def test_the_error_follows_the_tolerance() -> None:
    """Against the reference of the measured orders; calls grow as fifth order, by 10^(1/5) for a digit."""
    errors, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        sampler = build(tolerance, grid=uniform_in_log_snr)
        count = 0

        def hook(*_: object) -> None:
            nonlocal count
            count += 1

        sampler.model.register_forward_hook(hook)
        x = list(sampler.generator(start()))[-2]
        errors.append((x - reference(2)[-1]).norm(dim=1).max().item())
        calls.append(count)
    assert all(error < 20 * tolerance for error, tolerance in zip(errors, (1e-3, 1e-5, 1e-7, 1e-9), strict=True)), (
        errors
    )
    assert calls[-1] < 100 ** (3 / 5) * calls[0], calls


@pytest.mark.parametrize("predictor", ["target", "v", "edm"])
@pytest.mark.parametrize("schedule", ["rectified_flow", "zero_terminal_snr", "shifted_flow"])
def test_from_pure_noise_it_solves_the_flow_of_a_gaussian(schedule: str, predictor: str) -> None:
    """``x0 = mean + std z`` of x_T = z ~ N(0, 1), to within the noise of the first time."""
    made = SCHEDULES[schedule]()
    prediction = PREDICTORS[predictor](made)
    mean, std = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, 0.8]])
    sampler = dl.AdaptiveSampler(
        dl.IdealDenoiser(prediction, mean, std), made, prediction, rtol=1e-8, atol=1e-8, progress_bar=False
    ).eval()
    z = torch.randn(64, 2, dtype=torch.float64)
    first = made.sigma(torch.tensor(made.first)).item()
    torch.testing.assert_close(sampler(z), (mean + std * z).double(), rtol=0, atol=10 * first**2 + 1e-7)


def test_each_sample_has_its_own_steps() -> None:
    """One that is hard does not change its neighbours, to the bit."""
    sampler = build(1e-4)
    x = torch.randn(3, 2, dtype=torch.float64)
    hard = torch.cat([x[:2], 50 * x[2:]])
    assert torch.equal(sampler(x)[:2], sampler(hard)[:2])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x, t, c=None: dl.DiffusionOutput(x * float("nan")), "not finite"),
        (lambda x, t, c=None: dl.DiffusionOutput(torch.randn_like(x)), "are not reached"),
    ],
)
def test_a_model_without_a_flow_is_an_error(model, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def forward(self, *args: object) -> dl.DiffusionOutput:
            return model(*args)

    schedule = SCHEDULES["cosine"]()
    sampler = dl.AdaptiveSampler(Network(), schedule, dl.VPredictor(schedule), progress_bar=False).eval()
    integrate = __import__("diffusion_labs.samplers.adaptive", fromlist=["integrate"]).integrate
    monkeypatch.setattr("diffusion_labs.samplers.adaptive.integrate", lambda *a, **k: integrate(*a, **k, max_steps=30))
    with pytest.raises(ValueError, match=message):
        sampler(torch.randn(2, 1, 4, 4))


def test_impossible_tolerances_are_named() -> None:
    with pytest.raises(ValueError, match=r"rtol \(0.0\) and atol \(0.0\)"):
        build(0.0)


@pytest.mark.parametrize("options", [{"eval_steps": 1}, {"eval_steps": 4, "grid": dl.trailing}, {"eval_steps": 4}])
def test_the_grid_does_not_change_the_sample(options: dict) -> None:
    x = torch.randn(8, 2, dtype=torch.float64)
    torch.testing.assert_close(build(1e-8, **options)(x), build(1e-8)(x), rtol=1e-5, atol=1e-5)
