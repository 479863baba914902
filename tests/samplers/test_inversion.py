"""``invert`` then ``sample`` returns the image."""

import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import SAMPLERS, SCHEDULES

MEANS = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]])
INVERTIBLE = ("ddim", "euler", "heun", "dpmpp_2s", "dpm2")


def build(name: str, schedule: str = "continuous_vp", steps: int = 20, **options) -> dl.Sampler:
    made = SCHEDULES[schedule]()
    predictor = dl.VPredictor(made)
    model = dl.IdealDenoiser(predictor, MEANS, 0.4, classes=[0, 0, 1])
    return SAMPLERS[name](
        model, made, predictor, **{"eval_steps": steps, "grid": dl.karras, "progress_bar": False, **options}
    ).eval()


def images(sampler: dl.Sampler, count: int = 8) -> torch.Tensor:
    return sampler.model.sample(count, torch.Generator().manual_seed(0))


def error(sampler: dl.Sampler, **options) -> float:
    x = images(sampler)
    return (sampler(dl.invert(sampler, x, **options)) - x).abs().max().item()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("rectified_flow", "edm")]


@pytest.mark.parametrize("schedule", ["continuous_vp", "zero_terminal_snr", *SLOW])
@pytest.mark.parametrize("name", INVERTIBLE)
def test_the_way_there_and_back_converges_with_the_steps_and_is_exact_with_refinements(
    name: str, schedule: str
) -> None:
    few, many = (error(build(name, schedule, steps)) for steps in (15, 60))
    assert many < few / 2.5, (few, many)
    first = build(name, schedule).schedule
    noise = (first.sigma(torch.tensor(first.first)) / first.alpha(torch.tensor(first.first))).item()
    assert error(build(name, schedule, 25), refinements=12) < 1e-6 + noise**2


def test_the_adaptive_solver_inverts_itself() -> None:
    assert error(build("adaptive", "edm", steps=2, rtol=1e-8, atol=1e-8)) < 1e-6


def test_the_noise_is_that_of_the_probability_flow() -> None:
    """A Gaussian's flow in closed form: what ``invert`` returns, not only that it comes back."""
    schedule = SCHEDULES["edm"]()
    predictor = dl.NoisePredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.tensor([[0.5]]), 0.3)
    sampler = dl.AdaptiveSampler(model, schedule, predictor, rtol=1e-7, atol=1e-7, progress_bar=False).eval()
    x0 = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    expected = 0.5 + (x0 - 0.5) * (0.3**2 + schedule.terminal**2) ** 0.5 / 0.3
    torch.testing.assert_close(dl.invert(sampler, x0), expected, rtol=1e-4, atol=1e-4)


def test_conditions_arrive() -> None:
    sampler = build("ddim", steps=40)
    x, label = images(sampler), {"class": torch.ones(8, dtype=torch.long)}
    there = dl.invert(sampler, x, label, refinements=10)
    assert (sampler(there, conditional_inputs=label) - x).abs().max() < 1e-4
    assert (sampler(there) - x).abs().max() > 0.1


@pytest.mark.parametrize("name", ["ddpm", "euler_ancestral", "edm_stochastic", "restart"])
def test_a_stochastic_sampler_is_refused(name: str) -> None:
    sampler = build(name)
    with pytest.raises(ValueError, match="draws noise, so it has no inverse"):
        dl.invert(sampler, images(sampler))


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc_2", "lms_2", "deis_2"])
def test_a_sampler_with_a_history_is_refused(name: str) -> None:
    sampler = build(name)
    with pytest.raises(ValueError, match="uses past steps, so it has no inverse"):
        dl.invert(sampler, images(sampler))
