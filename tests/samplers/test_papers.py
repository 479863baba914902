"""Paths against the papers' formulas (DDPM and DDIM in alpha_bar and beta), written here a second time."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import TinyNetwork

BETAS = dl.cosine_beta_schedule(1000)
ALPHA_BAR = torch.cat([(1 - BETAS).cumprod(0), torch.ones(1, dtype=torch.float64)])  # index -1 is clean data
GRIDS = {"trailing": dl.trailing, "leading": dl.leading, "linspace": dl.linspace}


def noises(count: int, x: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(count)]


def predicted_noise(model: TinyNetwork, x: Tensor, t: int) -> Tensor:
    with torch.no_grad():
        return model(x, torch.full((len(x),), t)).prediction


def ddim(model: TinyNetwork, x: Tensor, times: list[int], eta: float) -> list[Tensor]:
    """DDIM, Eq. 12 and 16, over the pairs of the times and a last step to clean data."""
    path = []
    for t, s, z in zip(times, [*times[1:], -1], noises(len(times), x), strict=True):
        eps, a_t, a_s = predicted_noise(model, x, t), ALPHA_BAR[t], ALPHA_BAR[s]
        sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
        x0 = (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()
        x = a_s.sqrt() * x0 + (1 - a_s - sigma**2).sqrt() * eps + sigma * z
        path.append(x)
    return path


def ddpm(model: TinyNetwork, x: Tensor, times: list[int], large: bool) -> list[Tensor]:
    """DDPM, Eq. 6 and 7, with the betas of the strided process: beta = 1 - a_t / a_s."""
    path = []
    for t, s, z in zip(times, [*times[1:], -1], noises(len(times), x), strict=True):
        eps, a_t, a_s = predicted_noise(model, x, t), ALPHA_BAR[t], ALPHA_BAR[s]
        beta = 1 - a_t / a_s
        x0 = (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()
        mean = a_s.sqrt() * beta / (1 - a_t) * x0 + (1 - beta).sqrt() * (1 - a_s) / (1 - a_t) * x
        variance = beta if large else (1 - a_s) / (1 - a_t) * beta
        x = mean + (variance.sqrt() * z if s >= 0 else 0)
        path.append(x)
    return path


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [5, 13, 50])
def test_whole_paths(grid: str, steps: int) -> None:
    schedule = dl.DiscreteGaussianSchedule(BETAS)
    predictor = dl.NoisePredictor(schedule)
    model = TinyNetwork().double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    options = {"eval_steps": steps, "grid": GRIDS[grid], "progress_bar": False}
    cases = [
        *((dl.DDIMSampler(model, schedule, predictor, eta=eta, **options), ddim, eta) for eta in (0.0, 0.4, 1.0)),
        *((dl.DDPMSampler(model, schedule, predictor, variance_value=v, **options), ddpm, v) for v in (0.0, 1.0)),
    ]
    for sampler, paper, setting in cases:
        path = list(sampler.eval().generator(x, generator=torch.Generator().manual_seed(0)))
        expected = paper(model, x, sampler.times().tolist(), setting)
        for ours, theirs in zip(path, expected, strict=True):
            scale = theirs.abs().max()
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-9)


def dpm_solver_3(eps, lam: Tensor, lam_s: Tensor, x: Tensor) -> Tensor:
    """DPM-Solver, Alg. 2: single-step, third order, in the noise; ``eps(x, lam)`` is the network."""
    r1, r2, h = 1 / 3, 2 / 3, lam_s - lam
    alpha, sigma = (lambda v: (2 * v).sigmoid().sqrt()), (lambda v: (-2 * v).sigmoid().sqrt())
    lam_1, lam_2 = lam + r1 * h, lam + r2 * h
    u_1 = alpha(lam_1) / alpha(lam) * x - sigma(lam_1) * (r1 * h).expm1() * eps(x, lam)
    d_1 = eps(u_1, lam_1) - eps(x, lam)
    u_2 = alpha(lam_2) / alpha(lam) * x - sigma(lam_2) * (r2 * h).expm1() * eps(x, lam)
    u_2 = u_2 - sigma(lam_2) * r2 / r1 * ((r2 * h).expm1() / (r2 * h) - 1) * d_1
    d_2 = eps(u_2, lam_2) - eps(x, lam)
    x_s = alpha(lam_s) / alpha(lam) * x - sigma(lam_s) * h.expm1() * eps(x, lam)
    return x_s - sigma(lam_s) / r2 * (h.expm1() / h - 1) * d_2


def dpm_solver_pp_3s(eps, lam: Tensor, lam_s: Tensor, x: Tensor) -> Tensor:
    """The same in x0, as the authors' code of DPM-Solver++ has it."""
    r1, r2, h = 1 / 3, 2 / 3, lam_s - lam
    alpha, sigma = (lambda v: (2 * v).sigmoid().sqrt()), (lambda v: (-2 * v).sigmoid().sqrt())

    def x0(x: Tensor, v: Tensor) -> Tensor:
        return (x - sigma(v) * eps(x, v)) / alpha(v)

    lam_1, lam_2 = lam + r1 * h, lam + r2 * h
    u_1 = sigma(lam_1) / sigma(lam) * x - alpha(lam_1) * (-r1 * h).expm1() * x0(x, lam)
    d_1 = x0(u_1, lam_1) - x0(x, lam)
    u_2 = sigma(lam_2) / sigma(lam) * x - alpha(lam_2) * (-r2 * h).expm1() * x0(x, lam)
    u_2 = u_2 + r2 / r1 * alpha(lam_2) * ((-r2 * h).expm1() / (r2 * h) + 1) * d_1
    d_2 = x0(u_2, lam_2) - x0(x, lam)
    x_s = sigma(lam_s) / sigma(lam) * x - alpha(lam_s) * (-h).expm1() * x0(x, lam)
    return x_s + 1 / r2 * alpha(lam_s) * ((-h).expm1() / h + 1) * d_2


@pytest.mark.parametrize(
    ("solver", "paper"), [(dl.DPMSolver3Sampler, dpm_solver_3), (dl.DPMSolverPP3SSampler, dpm_solver_pp_3s)]
)
@torch.no_grad()
def test_third_order_single_step(solver: type[dl.Sampler], paper) -> None:
    schedule = dl.VariancePreservingSchedule()
    model = TinyNetwork().double()
    sampler = solver(model, schedule, dl.NoisePredictor(schedule), eval_steps=6, progress_bar=False).eval()

    def eps(x: Tensor, lam: Tensor) -> Tensor:
        return model(x, schedule.time(2 * lam).expand(len(x))).prediction

    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    half_log_snr = schedule.log_snr(sampler.times()) / 2
    path = list(sampler.generator(x))[:-1]
    for lam, lam_s, ours in zip(half_log_snr[:-1], half_log_snr[1:], path, strict=True):
        x = paper(eps, lam, lam_s, x)
        torch.testing.assert_close(ours / x.abs().max(), x / x.abs().max(), rtol=0, atol=1e-9)
