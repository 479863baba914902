"""Step by step against diffusers, an independent implementation, where its grids are right."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import TinyNetwork

diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")

BETAS = {
    "linear": dl.linear_beta_schedule(1000),
    "scaled_linear": dl.scaled_linear_beta_schedule(1000),
    "squaredcos_cap_v2": dl.cosine_beta_schedule(1000),
}
PREDICTORS = {"epsilon": dl.NoisePredictor, "sample": dl.TargetPredictor, "v_prediction": dl.VPredictor}
GRIDS = {"trailing": dl.trailing, "leading": dl.leading}  # linspace: see the last test, and test_papers


@pytest.mark.parametrize("name", BETAS)
def test_betas_are_those_of_diffusers(name: str) -> None:
    start, end = (0.0001, 0.02) if name == "linear" else (0.00085, 0.012)
    theirs = diffusers.DDPMScheduler(1000, start, end, beta_schedule=name).betas
    torch.testing.assert_close(BETAS[name].float(), theirs, rtol=1e-4, atol=1e-7)


def test_zero_terminal_snr_is_that_of_diffusers() -> None:
    theirs = diffusers.DDIMScheduler(
        1000, 0.00085, 0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    ).alphas_cumprod.double()
    schedule = dl.DiscreteGaussianSchedule(dl.rescale_zero_terminal_snr(dl.scaled_linear_beta_schedule(1000)))
    ours = schedule.alpha(torch.arange(1000)) ** 2
    torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=1e-3, atol=1e-7)
    assert ours[-1] == 0


def ours(sampler: dl.Sampler, x: Tensor) -> list[Tensor]:
    """The points of a path; noise of step i comes from the generator of seed i."""
    return list(sampler.eval().generator(x, generator=torch.Generator().manual_seed(0)))


def theirs(scheduler, model: torch.nn.Module, times: Tensor, x: Tensor, **options) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    path = []
    for t in times:
        with torch.no_grad():
            prediction = model(x, torch.full((len(x),), int(t)), None).prediction
        x = scheduler.step(prediction, int(t), x, generator=generator, **options).prev_sample
        path.append(x)
    return path


def assert_same_paths(left: list[Tensor], right: list[Tensor]) -> None:
    assert len(left) == len(right)
    for step, (a, b) in enumerate(zip(left, right, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=lambda m, step=step: f"step {step}: {m}")


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", PREDICTORS)
@pytest.mark.parametrize("grid", GRIDS)
def test_ddim_paths_are_those_of_diffusers(grid: str, prediction: str, eta: float, clip: bool) -> None:
    """On ten steps, whose spacing divides 1000: else its leading and linspace grids step beside the next time."""
    schedule = dl.DiscreteGaussianSchedule(BETAS["scaled_linear"])
    predictor = PREDICTORS[prediction](schedule, clamp=dl.StaticClamp() if clip else None)
    model = TinyNetwork().double()
    sampler = dl.DDIMSampler(model, schedule, predictor, eta=eta, eval_steps=10, grid=GRIDS[grid], progress_bar=False)
    scheduler = diffusers.DDIMScheduler(
        1000,
        trained_betas=BETAS["scaled_linear"].numpy(),
        prediction_type=prediction,
        timestep_spacing=grid,
        clip_sample=clip,
    )
    scheduler.alphas_cumprod = (1 - BETAS["scaled_linear"]).cumprod(0)  # its tables are float32
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == sampler.times().tolist()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    expected = theirs(scheduler, model, scheduler.timesteps, x, eta=eta, use_clipped_model_output=True)
    if eta > 0:  # the last step to clean data has no noise in it in either
        assert_same_paths(ours(sampler, x)[:-1], expected[:-1])
    else:
        assert_same_paths(ours(sampler, x), expected)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("prediction", PREDICTORS)
@pytest.mark.parametrize("betas", BETAS)
def test_ddpm_steps_are_those_of_diffusers(betas: str, prediction: str, variance: str) -> None:
    """The thousand-step process, from three of its steps: means, variances and noise."""
    schedule = dl.DiscreteGaussianSchedule(BETAS[betas])
    learned = variance == "learned_range"
    predictor = PREDICTORS[prediction](schedule)
    model = TinyNetwork(learned_variance=learned).double()
    sampler = dl.DDPMSampler(
        model, schedule, predictor, variance_value=float(variance == "fixed_large"), progress_bar=False
    ).eval()
    scheduler = diffusers.DDPMScheduler(
        1000,
        trained_betas=BETAS[betas].numpy(),
        prediction_type=prediction,
        variance_type=variance,
        clip_sample=False,
    )
    scheduler.betas = BETAS[betas]
    scheduler.alphas = 1 - BETAS[betas]
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    for t in (990, 400, 1):
        x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
        with torch.no_grad():
            output = model(x, torch.full((2,), t), None)
        prediction_and_variance = output.prediction
        if learned:
            prediction_and_variance = torch.cat([output.prediction, 2 * output.variance_value - 1], 1)
        expected = scheduler.step(prediction_and_variance, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
        path = sampler.generator(x, start=t, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(next(path), expected, rtol=1e-5, atol=1e-5)


def test_where_diffusers_steps_beside_its_grid_ours_is_right() -> None:
    """Trailing times whose number does not divide 1000 (diffusers issue 9261), on Gaussian data and its flow."""
    mean, std = 0.5, 0.3
    schedule = dl.DiscreteGaussianSchedule(BETAS["scaled_linear"])
    predictor = dl.NoisePredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.tensor([[mean]]), std)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    alpha, sigma = schedule.alpha(torch.tensor(999)), schedule.sigma(torch.tensor(999))
    exact = mean + std * (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2).sqrt()

    scheduler = diffusers.DDIMScheduler(
        1000,
        trained_betas=BETAS["scaled_linear"].numpy(),
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.alphas_cumprod = (1 - BETAS["scaled_linear"]).cumprod(0)
    errors = []
    for steps in (13, 300):
        scheduler.set_timesteps(steps)
        sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=steps, progress_bar=False).eval()
        theirs_error = (theirs(scheduler, model, scheduler.timesteps, x)[-1] - exact).abs().max().item()
        errors.append(((sampler(x) - exact).abs().max().item(), theirs_error))
    assert errors[1][0] < errors[0][0] / 10, errors  # ours converges
    assert errors[1][1] > 3 * errors[1][0], errors  # theirs does not
