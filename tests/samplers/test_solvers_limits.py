"""Solvers from pure noise, where log-SNR is minus infinity; their weights; and what they refuse."""

import math

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.samplers.exponential import lagrange, moment
from tests.catalogue import SAMPLERS, SCHEDULES, TinyNetwork
from tests.samplers.test_order import SOLVERS


@pytest.mark.parametrize("name", SOLVERS)
def test_from_pure_noise_the_error_still_falls(name: str) -> None:
    """Gaussian data: the probability flow is x_s = m_s + (x_t - m_t) sqrt(v_s / v_t), in closed form."""
    mean, std = 0.5, 0.3
    schedule = SCHEDULES["zero_terminal_snr"]()
    predictor = dl.VPredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.tensor([[mean]]), std)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for steps in (25, 200):
        sampler = SAMPLERS[name](model, schedule, predictor, eval_steps=steps, progress_bar=False).eval()
        errors.append((sampler(x) - (mean + std * x)).abs().max().item())
    assert errors[1] < errors[0] / 4, errors


@pytest.mark.parametrize("h", [-3.0, -1.0, -0.999, -1e-3, 1e-3, 0.999, 1.0, 3.0])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_moments_are_their_integrals(h: float, k: int) -> None:
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    integral = (h * (-h * (1 - u)).exp() * u**k).mean().item()
    assert moment(h, k) == pytest.approx(integral, rel=1e-7)


def test_moments_of_an_infinite_step_are_those_of_its_end() -> None:
    assert [moment(math.inf, k) for k in range(4)] == [1, 1, 1, 1]


def test_lagrange_gives_the_adams_bashforth_weights() -> None:
    assert lagrange([0, -1, -2], [1, 1 / 2, 1 / 3]) == pytest.approx([23 / 12, -16 / 12, 5 / 12])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *parts: dl.UniPCSampler(*parts, order=0), r"order \(0\)"),
        (lambda *parts: dl.DEISSampler(*parts, order=0), r"order \(0\)"),
        (lambda *parts: dl.LMSSampler(*parts, order=0), r"order \(0\)"),
        (lambda *parts: dl.DPM2AncestralSampler(*parts, eta=1.1), r"eta \(1.1\)"),
        (lambda *parts: dl.EDMStochasticSampler(*parts, churn=-1.0), r"churn \(-1.0\)"),
    ],
)
def test_impossible_settings_are_named(make, message: str) -> None:
    schedule = SCHEDULES["cosine"]()
    with pytest.raises(ValueError, match=message):
        make(TinyNetwork(), schedule, dl.VPredictor(schedule))


def test_settings_at_which_solvers_are_the_same() -> None:
    schedule = SCHEDULES["cosine"]()
    parts = TinyNetwork().double(), schedule, dl.VPredictor(schedule)
    options = {"eval_steps": 6, "progress_bar": False}
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    ddim = dl.DDIMSampler(*parts, **options).eval()(x)
    solvers = (
        dl.EulerSampler,
        dl.EulerAncestralSampler,
        dl.DEISSampler,
        dl.LMSSampler,
        dl.IPNDMSampler,
        dl.PNDMSampler,
    )
    for first_order in solvers:
        setting = {dl.EulerSampler: {}, dl.EulerAncestralSampler: {"eta": 0.0}}.get(first_order, {"order": 1})
        torch.testing.assert_close(first_order(*parts, **setting, **options).eval()(x), ddim)
    heun = dl.HeunSampler(*parts, **options).eval()(x)
    torch.testing.assert_close(dl.EDMStochasticSampler(*parts, churn=0.0, **options).eval()(x), heun)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_on_equal_steps_in_sigma_over_alpha_ipndm_is_lms(order: int) -> None:
    def grid(schedule: dl.Schedule, steps: int) -> torch.Tensor:
        return schedule.time(-2 * torch.linspace(20, 0.1, steps, dtype=torch.float64).log())

    schedule = SCHEDULES["cosine"]()
    parts = TinyNetwork().double(), schedule, dl.VPredictor(schedule)
    options = {"order": order, "eval_steps": 7, "grid": grid, "progress_bar": False}
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(
        dl.IPNDMSampler(*parts, **options).eval()(x), dl.LMSSampler(*parts, **options).eval()(x), rtol=1e-6, atol=1e-6
    )
