"""Samplers of distilled models: step by step against diffusers, and their laws with exact models."""

import math

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import SCHEDULES, ConsistencyFunction, LCMNetwork, TinyNetwork

MEAN, STD = 0.75, 0.4
BETAS = dl.scaled_linear_beta_schedule(1000)


def theirs(scheduler, sampler: dl.Sampler, noise: Tensor, **options) -> list[Tensor]:
    """The path of a scheduler of diffusers on its own grid, with its float32 tables replaced by float64 ones."""
    scheduler.alphas_cumprod = (1 - BETAS).cumprod(0)
    scheduler.set_timesteps(sampler.eval_steps)
    assert scheduler.timesteps.tolist() == sampler.times().tolist()
    generator, x, path = torch.Generator().manual_seed(0), noise, []
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = sampler.model(x, t.expand(len(x)), None).prediction
        x = scheduler.step(output, t, x, generator=generator, **options).prev_sample
        path.append(x)
    return path


def ours(sampler: dl.Sampler, noise: Tensor) -> list[Tensor]:
    return list(sampler.eval().generator(noise, generator=torch.Generator().manual_seed(0)))


def tiny(make, steps: int, predictor=dl.NoisePredictor, **options) -> dl.Sampler:
    schedule = dl.DiscreteGaussianSchedule(BETAS)
    return make(TinyNetwork().double(), schedule, predictor(schedule), eval_steps=steps, progress_bar=False, **options)


def assert_same(left: list[Tensor], right: list[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a / b.abs().max(), b / b.abs().max(), rtol=0, atol=1e-5)


PREDICTORS = {"epsilon": dl.NoisePredictor, "sample": dl.TargetPredictor, "v_prediction": dl.VPredictor}


@pytest.mark.parametrize("prediction", PREDICTORS)
@pytest.mark.parametrize("steps", [1, 4, 7, 50])
def test_lcm_is_that_of_diffusers(steps: int, prediction: str) -> None:
    """The last step too: the network's output is scaled to the consistency function there as well."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")
    sampler = tiny(dl.LCMSampler, steps, PREDICTORS[prediction])
    scheduler = diffusers.LCMScheduler(1000, prediction_type=prediction)
    noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert_same(ours(sampler, noise), theirs(scheduler, sampler, noise))


@pytest.mark.parametrize("prediction", PREDICTORS)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_tcd_is_that_of_diffusers(gamma: float, prediction: str) -> None:
    """Up to the last step: theirs goes to the first noise level, ours to clean data, as every sampler here."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")
    sampler = tiny(dl.TCDSampler, 7, PREDICTORS[prediction], gamma=gamma)
    scheduler = diffusers.TCDScheduler(1000, prediction_type=prediction)
    noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert_same(ours(sampler, noise)[:-1], theirs(scheduler, sampler, noise, eta=gamma)[:-1])


def test_lcm_scales_by_the_boundary_condition() -> None:
    """``f = c_skip x_t + c_out x0`` with the paper's coefficients, where both matter: a coarse scaling of time."""
    sampler = tiny(dl.LCMSampler, 4, scaling=3.0)
    (level,) = sampler.schedule.levels(torch.tensor([399]))
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        f = sampler.consistency(x, level, sampler.denoiser())
        x0 = sampler.predictor.predict_x0(sampler.model(x, torch.tensor([399, 399]), None).prediction, x, level.t)
    torch.testing.assert_close(f, x / (1.2**2 + 1) + 1.2 / math.sqrt(1.2**2 + 1) * x0)


def test_what_a_distilled_sampler_estimates_is_the_model_s() -> None:
    """So that its likelihood and losses are those of any other sampler around the model."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    model, x = dl.IdealDenoiser(predictor, torch.tensor([[MEAN]]), STD), torch.randn(3, 1, dtype=torch.float64)
    (level,) = schedule.levels(torch.tensor([399]))
    lcm, ddim = (kind(model, schedule, predictor, eval_steps=4) for kind in (dl.LCMSampler, dl.DDIMSampler))
    torch.testing.assert_close(lcm.denoise(x, level), ddim.denoise(x, level), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [dl.LCMSampler, dl.TCDSampler])
def test_a_distilled_sampler_makes_few_calls_if_none_are_asked_for(kind) -> None:
    schedule = SCHEDULES["cosine"]()
    sampler = kind(torch.nn.Identity(), schedule, dl.VPredictor(schedule), progress_bar=False)
    assert sampler.times().tolist() == [999, 759, 499, 259]


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("schedule", ["zero_terminal_snr", "rectified_flow", "shifted_cosine"])
def test_with_the_exact_consistency_function_every_number_of_steps_draws_the_data(schedule: str, steps: int) -> None:
    """From pure noise; within four standard deviations of the mean and spread of 4,000 samples."""
    process, n = SCHEDULES[schedule](), 4000
    predictor = dl.VPredictor(process)
    options = {"eval_steps": steps, "progress_bar": False}
    mean = torch.tensor([[MEAN]], dtype=torch.float64)
    for sampler in (
        dl.LCMSampler(LCMNetwork(predictor, mean, STD), process, predictor, **options),
        dl.TCDSampler(ConsistencyFunction(predictor, mean, STD), process, predictor, gamma=1.0, **options),
    ):
        # in a discrete schedule, TCD jumps to its first noise level, not quite to clean data
        slack = 0.0 if schedule != "zero_terminal_snr" else process.sigma(torch.tensor(0)).item()
        x = sampler.eval()(process.sample_prior((n, 1), dtype=torch.float64))
        assert abs(x.mean().item() - MEAN) < 4 * STD / n**0.5
        assert abs(x.std().item() / STD - 1) < 4 / (2 * n) ** 0.5 + slack


def test_tcd_without_noise_is_ddim() -> None:
    noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    ddim = tiny(dl.DDIMSampler, 7, grid=dl.distilled)
    torch.testing.assert_close(ours(tiny(dl.TCDSampler, 7, gamma=0.0), noise), ours(ddim, noise))


def test_the_grid_is_chosen_out_of_the_original_one() -> None:
    schedule = dl.DiscreteGaussianSchedule(BETAS)
    assert dl.distilled(schedule, 4).tolist() == [999, 759, 499, 259]
    assert dl.distilled(schedule, 50).tolist() == list(range(999, 18, -20))
    assert dl.distilled(dl.RectifiedFlowSchedule(), 4).tolist() == pytest.approx([1.0, 0.76, 0.5, 0.26])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *parts: dl.LCMSampler(*parts, scaling=0.0), r"scaling \(0.0\)"),
        (lambda *parts: dl.TCDSampler(*parts, gamma=1.1), r"gamma \(1.1\)"),
        (lambda *parts: dl.LCMSampler(*parts, eval_steps=51), r"original_steps \(50\).*steps \(51\)"),
    ],
)
def test_impossible_settings_are_named(make, message: str) -> None:
    schedule = SCHEDULES["cosine"]()
    with pytest.raises(ValueError, match=message):
        make(TinyNetwork(), schedule, dl.VPredictor(schedule))
