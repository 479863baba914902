"""The measured order of every deterministic solver, on a mixture of Gaussians in the plane.

The error is that at the last grid point before clean data, on grids uniform in log-SNR; the reference is
a Runge-Kutta solution of the probability flow written here.
"""

import functools
import math

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests import catalogue
from tests.catalogue import SAMPLERS

NOISY, CLEAN = -3.0, 4.0  # log-SNR at the ends of the path
MEANS = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]])
STD = torch.tensor([[0.5, 0.4], [0.4, 0.6], [0.5, 0.5]])

# sampler: (order with its own start-up, order with an exact start)
ORDERS = {
    "ddim": (1, 1),
    "euler": (1, 1),
    "heun": (2, 2),
    "dpmpp_2m": (2, 2),
    "dpmpp_2s": (2, 2),
    "dpmpp_3m": (2, 3),  # its first step is of first order
    "adams_2": (3, 3),
    "adams_3": (3, 3),  # 4, but for its first step, which is corrected to second order
    "flow_adams": (2, 3),  # its first step is of first order
    "unipc_1": (2, 2),
    "unipc_2": (3, 3),
    "unipc_3": (3, 3),  # 4, but for its first step, which is of second order
    "deis_2": (2, 2),
    "deis_3": (2, 3),  # its first step is of first order
    "dpm2": (2, 2),
    "lms_2": (2, 2),
    "lms_3": (2, 3),  # its first step is of first order
    "dpm3": (3, 3),
    "dpmpp_3s": (3, 3),
    "dpm_2m": (2, 2),
    "dpm_3m": (2, 2),  # it takes half of the second derivative
    "ipndm": (2, 2),  # 4 where steps are equal in sigma / alpha; here they are not
    "plms": (2, 2),
    "pndm": (2, 2),
}


def uniform_in_log_snr(schedule: dl.Schedule, steps: int) -> Tensor:
    return schedule.time(torch.linspace(NOISY, CLEAN, steps, dtype=torch.float64))


def build(name: str, steps: int) -> dl.Sampler:
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    predictor = dl.VPredictor(schedule)
    model = dl.IdealDenoiser(predictor, MEANS, STD, [0.5, 0.3, 0.2])
    options = {"eval_steps": steps, "grid": uniform_in_log_snr, "progress_bar": False}
    return SAMPLERS[name](model, schedule, predictor, **options).eval()


@functools.cache
def start() -> Tensor:
    return torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@functools.cache
def reference(points: int) -> list[Tensor]:
    """x at ``points`` log-SNRs, by Runge-Kutta of fourth order in ``d(x / sigma) = e^l x0 dl``, l = log-SNR / 2."""
    sampler = build("ddim", 2)

    def slope(y: Tensor, half: Tensor) -> Tensor:
        alpha, sigma = (2 * half).sigmoid().sqrt(), (-2 * half).sigmoid().sqrt()
        level = dl.schedules.NoiseLevel(half, alpha, sigma, 2 * half)
        return half.exp() * sampler.model.denoise(sigma * y, level)

    fine = 2400 // (points - 1)
    grid = torch.linspace(NOISY / 2, CLEAN / 2, fine * (points - 1) + 1, dtype=torch.float64)
    h = grid[1] - grid[0]
    y = start() / (-2 * grid[0]).sigmoid().sqrt()
    path = [start()]
    for i, half in enumerate(grid[:-1]):
        a = slope(y, half)
        b = slope(y + h / 2 * a, half + h / 2)
        c = slope(y + h / 2 * b, half + h / 2)
        d = slope(y + h * c, half + h)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
        if (i + 1) % fine == 0:
            path.append(y * (-2 * grid[i + 1]).sigmoid().sqrt())
    return path


def error(name: str, steps: int, exact: int = 0) -> float:
    """Mean distance to the reference after ``steps`` steps, the first ``exact`` of which start on it.

    A multi-step solver's history is then that of the exact path.
    """
    sampler, path = build(name, steps + 1), reference(steps + 1)
    levels = sampler.schedule.levels(sampler.times())
    x, past = start(), None
    with torch.no_grad():
        for i in range(steps):
            x = path[i] if i <= exact else x
            x, past = sampler.step(x, levels[i], levels[i + 1], past, sampler.denoise, lambda *_: None)
    return (x - path[-1]).norm(dim=1).mean().item()


def order(name: str, exact: int) -> tuple[float, list[float]]:
    """The slope of log error from 80 steps to 160, and the errors."""
    errors = [error(name, steps, exact) for steps in (80, 160)]
    return torch.tensor(errors).log2().diff().neg()[-1].item(), errors


SOLVERS = [case for case in catalogue.SOLVERS if case.values[0] in ORDERS]


@pytest.mark.parametrize("name", SOLVERS)
def test_measured_order(name: str) -> None:
    """With the solver's own start-up, and with exact first steps."""
    for expected, exact in zip(ORDERS[name], (0, 3), strict=True):
        measured, errors = order(name, exact)
        assert measured > expected - 0.15, (measured, errors)


def test_a_short_first_step_gives_high_orders_their_start() -> None:
    """One call more, a sixth of the way into the first step, and UniPC with p = 4 is of order 5."""

    def last_error(steps: int) -> float:
        def grid(schedule: dl.Schedule, _: int) -> Tensor:
            times = uniform_in_log_snr(schedule, steps + 1)
            early = schedule.time(torch.tensor([NOISY + (CLEAN - NOISY) / steps / 6], dtype=torch.float64))
            return torch.cat([times[:1], early, times[1:]])

        ddim = build("ddim", 2)
        parts = ddim.model, ddim.schedule, ddim.predictor
        sampler = dl.UniPCSampler(*parts, order=4, eval_steps=steps + 2, grid=grid, progress_bar=False).eval()
        before_last = list(sampler.generator(start()))[-3]  # the last prediction is of order 4
        return (before_last - reference(steps + 1)[-2]).norm(dim=1).mean().item()

    errors = [last_error(steps) for steps in (40, 80)]
    assert math.log2(errors[0] / errors[1]) > 4.85, errors


def test_the_path_of_generator_is_that_of_the_steps() -> None:
    """What the order is measured on is what ``generator()`` yields before its last, clean point."""
    sampler = build("dpmpp_2m", 21)
    path = list(sampler.generator(start()))
    assert (path[-2] - reference(21)[-1]).norm(dim=1).mean().item() == pytest.approx(error("dpmpp_2m", 20), rel=1e-9)


if __name__ == "__main__":
    for name in ORDERS:
        for exact in (0, 3):
            measured, errors = order(name, exact)
            print(f"{name:16} exact steps {exact}: order {measured:5.2f}", *(f"{e:.1e}" for e in errors))
