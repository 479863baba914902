"""DDPM and DDIM paths against the papers' formulas in alpha_bar and beta, written here a second time."""

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
