"""What is drawn depends on the denoiser alone: not on its parameterisation, nor on the schedule that scales x."""

from functools import cache

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import PREDICTORS, SAMPLERS, SCHEDULES, SOLVERS

MEANS = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]])
NOISY, CLEAN = -6.0, 5.0  # log-SNR that every schedule below reaches
SCALES = (
    "cosine",
    "continuous_vp",
    "edm",
    "rectified_flow",
    "shifted_cosine",
    "variance_exploding",
    "zero_terminal_snr",
)

# Methods that are defined in the units of x or of time, and so are other methods on other schedules.
OF_ONE_SCHEDULE = {
    "ddpm_large": "the variance of q(x_t | x_s), in the units of x_t, is that of x_s: right for small steps only",
    "euler_maruyama": "discretises the forward SDE, whose drift is that of the scale of x",
    "predictor_corrector": "euler_maruyama is its predictor",
    "pndm": "its first steps have their middle in time",
    "repaint": "its steps within a jump are even in time",
    "tcd": "goes to a share of the time",
    "tcd_consistency": "goes to a share of the time",
    "lcm": "its boundary scalings are functions of time",
}

OWN_END = ("adaptive",)  # its sample is estimated at the first time of the schedule, not of the grid


def grid(schedule: dl.Schedule, steps: int) -> Tensor:
    return schedule.time(torch.linspace(NOISY, CLEAN, steps, dtype=torch.float64))


@cache
def start() -> Tensor:
    """``x_t / sqrt(alpha^2 + sigma^2)`` where sampling starts."""
    return torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def path(sampler: str, schedule: str, predictor: str, dtype: torch.dtype) -> Tensor:
    """``x_t / sqrt(alpha^2 + sigma^2)`` after each step, ``[steps, 8, 2]``, and the sample."""
    made = SCHEDULES[schedule]()
    prediction = PREDICTORS[predictor](made)
    model = dl.IdealDenoiser(prediction, MEANS, 0.3)
    built = SAMPLERS[sampler](model, made, prediction, eval_steps=12, grid=grid, progress_bar=False).eval()
    times = built.times()
    scale = (made.alpha(times) ** 2 + made.sigma(times) ** 2).sqrt()
    x = (scale[0] * start()).to(dtype)
    points = torch.stack(list(built.generator(x, generator=dl.seeded(range(8))))).double()
    return points / torch.cat([scale[1:], torch.ones(1)])[:, None, None]


@pytest.mark.parametrize("sampler", SOLVERS)
def test_every_parameterisation_gives_the_same_path(sampler: str) -> None:
    """In float32, to 1e-5 of a path of size one."""
    expected = path(sampler, "cosine", "v", torch.float32)
    for predictor in PREDICTORS:
        difference = (path(sampler, "cosine", predictor, torch.float32) - expected).abs().max().item()
        assert difference < 1e-5, (predictor, difference)


@pytest.mark.parametrize("sampler", [case for case in SOLVERS if case.values[0] not in OF_ONE_SCHEDULE])
def test_every_schedule_gives_the_same_path(sampler: str) -> None:
    """On grids with the same signal-to-noise ratios, whatever the scale of x."""
    expected = path(sampler, SCALES[0], "v", torch.float32)
    for schedule in SCALES[1:]:
        difference = (path(sampler, schedule, "v", torch.float32) - expected).abs().flatten(1).amax(1)
        difference = difference[:-1] if sampler in OWN_END else difference
        assert difference.max() < 1e-5, (schedule, difference)
