"""Stochastic solvers: the mean and spread of Gaussian data, without sampling error.

With a Gaussian's exact denoiser every step is affine in x and in the noise, so a batch in which each member
gets one unit of one of the noises gives the coefficients, and from them the exact mean and spread.
"""

import math
from itertools import pairwise

import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import SAMPLERS, SCHEDULES
from tests.samplers.test_order import uniform_in_log_snr

MEAN, STD = 0.75, 0.4
ORDERS = {
    "ddpm": 1,
    "ddim_stochastic": 1,
    "euler_ancestral": 1,
    "dpmpp_sde_2m": 2,
    "edm_stochastic": 1,
    "dpm2_ancestral": 1,
    "dpmpp_sde_3m": 2,  # of the spread; that of x0 along a noisy path is no polynomial
    "sa_solver": 2,
    "sa_solver_half": 2,
    "sa_solver_ode": 3,
    "euler_maruyama": 1,
    "restart": 2,  # up to what its interval's own steps leave
}


@torch.no_grad()
def error(name: str, steps: int) -> tuple[float, float]:
    """Errors of mean and spread at the last grid point, from the exact law at the first."""
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    predictor = dl.VPredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.tensor([[MEAN]]), STD)
    sampler = SAMPLERS[name](
        model, schedule, predictor, eval_steps=steps + 1, grid=uniform_in_log_snr, progress_bar=False
    ).eval()
    levels = schedule.levels(sampler.times())
    units = iter(torch.eye(steps + 3, dtype=torch.float64)[1:])  # row 0 of a batch gets no noise
    first, last = levels[0], levels[-1]
    x = first.alpha * MEAN + math.hypot(first.alpha * STD, first.sigma) * next(units)[:, None]
    past = None
    for t, s in pairwise(levels):
        x, past = sampler.step(x, t, s, past, sampler.denoise, lambda *_: next(units)[:, None])
    spread = (x[1:] - x[0]).norm().item()
    return abs(x[0].item() - last.alpha * MEAN), abs(spread - math.hypot(last.alpha * STD, last.sigma))


@pytest.mark.parametrize("name", ORDERS)
def test_mean_and_spread_fall_to_the_truth(name: str) -> None:
    """The error of the spread falls at the order of the solver; the mean of a Gaussian has none in any step.

    But for Euler-Maruyama's, which treats what is known, the drift of the process, like what is estimated.
    """
    means, spreads = zip(*(error(name, steps) for steps in (40, 80, 160)), strict=True)
    if name == "euler_maruyama":
        assert math.log2(means[-2] / means[-1]) > 0.85
    else:
        assert max(means) < 1e-9
    order = math.log2(spreads[-2] / spreads[-1])
    assert order > ORDERS[name] - 0.15, (order, spreads)


if __name__ == "__main__":
    for name in ORDERS:
        errors = torch.tensor([error(name, steps) for steps in (40, 80, 160)])
        print(f"{name:18} mean, spread: order {(errors[-2] / errors[-1]).log2().tolist()}", errors.tolist())


def test_keys_draw_other_noise_at_each_step() -> None:
    """The spread of a Gaussian's samples is that of samples from one generator: to 2 %, of 32,000 numbers."""
    schedule = SCHEDULES["continuous_vp"]()
    predictor = dl.VPredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.zeros(1, 16), 1.0)
    sampler = dl.DDPMSampler(model, schedule, predictor, eval_steps=100, progress_bar=False).eval()
    x = torch.randn(2000, 16, dtype=torch.float64)
    keyed = sampler(x, generator=dl.KeyedGenerator(torch.arange(2000))).std()
    assert abs(keyed / sampler(x, generator=torch.Generator().manual_seed(0)).std() - 1) < 0.02
