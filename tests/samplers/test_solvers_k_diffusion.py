"""Step by step against k-diffusion, on its own noise levels and with its own noise, in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from benchmarks.peers import k_diffusion_sampling

try:
    theirs = k_diffusion_sampling()
except ImportError as missing:
    pytest.skip(f"k-diffusion is the independent implementation: {missing}", allow_module_level=True)

MEANS = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]])
SCHEDULE = dl.EDMSchedule(sigma_max=200.0)  # time is the noise
PREDICTOR = dl.TargetPredictor(SCHEDULE)
MODEL = dl.IdealDenoiser(PREDICTOR, MEANS, 0.3)
SIGMAS = {
    "karras": theirs.get_sigmas_karras(9, 0.02, 80.0),
    "exponential": theirs.get_sigmas_exponential(12, 0.002, 80.0),
    "vp": theirs.get_sigmas_vp(20),
}

DETERMINISTIC = {
    "euler": (dl.EulerSampler, theirs.sample_euler),
    "ddim": (dl.DDIMSampler, theirs.sample_euler),
    "heun": (dl.HeunSampler, theirs.sample_heun),
    "dpm_2": (dl.DPM2Sampler, theirs.sample_dpm_2),
    "dpmpp_2s": (dl.DPMSolverPP2SSampler, partial(theirs.sample_dpmpp_2s_ancestral, eta=0.0)),
    "dpmpp_2m": (dl.DPMSolverPP2MSampler, theirs.sample_dpmpp_2m),
    "dpmpp_2m from the sde": (
        dl.DPMSolverPP2MSampler,
        partial(theirs.sample_dpmpp_2m_sde, eta=0.0, noise_sampler=lambda *_: 0.0),
    ),
}
STOCHASTIC = {
    "euler_ancestral": (dl.EulerAncestralSampler, theirs.sample_euler_ancestral),
    "euler_ancestral, eta 0.4": (
        partial(dl.EulerAncestralSampler, eta=0.4),
        partial(theirs.sample_euler_ancestral, eta=0.4),
    ),
    "dpm_2_ancestral": (dl.DPM2AncestralSampler, theirs.sample_dpm_2_ancestral),
    "dpm_2_ancestral, eta 0.4": (
        partial(dl.DPM2AncestralSampler, eta=0.4),
        partial(theirs.sample_dpm_2_ancestral, eta=0.4),
    ),
    "dpmpp_2m_sde": (dl.DPMSolverPPSDE2MSampler, theirs.sample_dpmpp_2m_sde),
}


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return MODEL(x, sigma).prediction


def start(sigmas: Tensor) -> Tensor:
    return sigmas[0] * torch.randn(8, 2, dtype=torch.float64)


def our_path(sampler: Callable[..., dl.Sampler], sigmas: Tensor, x: Tensor, model: torch.nn.Module = MODEL) -> Tensor:
    """Our points after each step but the first noise, the last of them clean."""

    def given(schedule: dl.Schedule, steps: int) -> Tensor:
        return schedule.time(-2 * sigmas[:-1].double().log())

    built = sampler(model, SCHEDULE, PREDICTOR, eval_steps=len(sigmas) - 1, grid=given, progress_bar=False).eval()
    return torch.stack(list(built.generator(x, generator=torch.Generator().manual_seed(0))))


def their_path(
    solve: Callable[..., Tensor], sigmas: Tensor, x: Tensor, model: Callable[..., Tensor] = denoise, **options: object
) -> Tensor:
    points: list[Tensor] = []
    last = solve(model, x, sigmas.double(), callback=lambda state: points.append(state["x"]), disable=True, **options)
    return torch.stack([*points[1:], last])


def their_noise(like: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda sigma, following: torch.randn(like.shape, generator=generator, dtype=like.dtype)


@pytest.mark.parametrize("grid", SIGMAS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_solvers(name: str, grid: str) -> None:
    """Every point, the clean one too: both end in the estimate of clean data."""
    ours, solve = DETERMINISTIC[name]
    sigmas = SIGMAS[grid]
    x = start(sigmas)
    torch.testing.assert_close(our_path(ours, sigmas, x), their_path(solve, sigmas, x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("grid", SIGMAS)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_with_the_same_noise(name: str, grid: str) -> None:
    ours, solve = STOCHASTIC[name]
    sigmas = SIGMAS[grid]
    x = start(sigmas)
    expected = their_path(solve, sigmas, x, noise_sampler=their_noise(x))
    torch.testing.assert_close(our_path(ours, sigmas, x), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", SIGMAS)
def test_lms(grid: str, order: int) -> None:
    """All points but the last: theirs extrapolates to a noise of 0, ours is the estimate of clean data."""
    sigmas = SIGMAS[grid]
    x = start(sigmas)
    ours = our_path(partial(dl.LMSSampler, order=order), sigmas, x)
    expected = their_path(partial(theirs.sample_lms, order=order), sigmas, x)
    torch.testing.assert_close(ours[:-1], expected[:-1], rtol=0, atol=1e-8)
    torch.testing.assert_close(ours[-1], denoise(ours[-2], sigmas[-2].double()), rtol=0, atol=1e-12)


def test_3m_integrates_a_parabola_exactly_where_theirs_takes_half_of_its_curvature() -> None:
    """Estimates ``x0 = 1 + l - l^2 / 5``, l = -log sigma, whatever x: the flow is known in closed form.

    With the antiderivative ``e^l (x0 - x0' + x0'')`` of ``e^l x0``, from l to m
    ``x_m = e^(l - m) x_l + (x0 - x0' + x0'')(m) - e^(l - m) (x0 - x0' + x0'')(l)``. The first two steps know too few
    estimates, and are the same in both; from the third on ours is exact. Theirs adds ``phi_3`` times half of the second
    derivative: its error is the other half, ``-phi_3 h^2 x0'' / 2`` (``phi_3`` as in its code).
    """
    sigmas = SIGMAS["exponential"].double()
    log_snr = -sigmas[:-1].log()

    def x0(half: Tensor) -> Tensor:
        return 1 + half - half**2 / 5

    class Parabola(torch.nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: object = None) -> dl.DiffusionOutput:
            return dl.DiffusionOutput(x0(-timestep.log())[:, None].expand_as(x))

    x = start(sigmas)
    ours = our_path(dl.DPMSolverPP3MSampler, sigmas, x, Parabola())
    solve = partial(theirs.sample_dpmpp_3m_sde, eta=0.0, noise_sampler=lambda *_: 0.0)
    expected = their_path(solve, sigmas, x, lambda x, sigma: Parabola()(x, sigma).prediction)
    torch.testing.assert_close(ours[:2], expected[:2], rtol=0, atol=1e-8)

    second = -2 / 5
    integral = x0(log_snr) - (1 + second * log_snr) + second
    h = log_snr.diff()
    phi_3 = ((-h).expm1() / h + 1) / h - 0.5
    for i in range(2, len(log_snr) - 1):
        decay = (-h[i]).exp()
        for path, error in ((ours, 0.0), (expected, phi_3[i] * h[i] ** 2 * second / 2)):
            exact = decay * path[i - 1] + integral[i + 1] - decay * integral[i]
            torch.testing.assert_close(path[i], exact + error, rtol=0, atol=1e-9, msg=lambda m, i=i: f"step {i}: {m}")


def test_only_the_solvers_of_k_diffusion_are_imported() -> None:
    import sys

    assert not {"torchvision", "wandb", "k_diffusion.evaluation"} & set(sys.modules)
