"""Processes and mixtures of Gaussians whose exact denoiser and probability flow are known, float64."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import diffusion_labs as dl


class Mixture(NamedTuple):
    """Data ``sum_k N(means_k, std_k^2) / K``."""

    means: Tensor  # [k, d]
    std: Tensor  # [k, 1]


def plane() -> Mixture:
    """Three broad components in two dimensions."""
    return Mixture(torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]]).double(), torch.tensor([[0.4], [0.5], [0.3]]))


def space() -> Mixture:
    """Sixteen narrow components in 64 dimensions."""
    generator = torch.Generator().manual_seed(0)
    means = 0.5 * torch.randn(16, 64, generator=generator, dtype=torch.float64)
    return Mixture(means, torch.linspace(0.1, 0.25, 16)[:, None])


def stable_diffusion() -> dl.Schedule:
    """The thousand steps of Stable Diffusion: sigma / alpha from 14.6 to 0.029."""
    return dl.DiscreteGaussianSchedule(dl.scaled_linear_beta_schedule(1000))


def flow() -> dl.Schedule:
    """Straight paths from t = 0.999: the other libraries cannot start at pure noise."""
    schedule = dl.RectifiedFlowSchedule()
    schedule.terminal = 0.999
    return schedule


PROCESSES: dict[str, Callable[[], dl.Schedule]] = {"vp": stable_diffusion, "edm": dl.EDMSchedule, "flow": flow}
MIXTURES: dict[str, tuple[Callable[[], Mixture], int]] = {"plane": (plane, 256), "space": (space, 64)}


class Oracle(nn.Module):
    """The exact denoiser ``E[x0 | xt]`` of a mixture, which counts its calls; ``dl.IdealDenoiser``, but faster.

    With r_k the share of component k in x and ``v_k = alpha^2 std_k^2 + sigma^2``, it is
    ``sum_k r_k (sigma^2 / v_k mean_k + alpha std_k^2 / v_k x)``.

    Args:
        schedule: whose times the network is called at.
        data: the mixture.
    """

    def __init__(self, schedule: dl.Schedule, data: Mixture) -> None:
        super().__init__()
        self.schedule = schedule
        self.means = data.means
        self.variances = data.std[:, 0].double() ** 2
        self.squares = data.means.square().sum(1)
        self.levels: dict[float, tuple[float, float]] = {}
        self.calls = 0

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: None = None) -> dl.DiffusionOutput:
        """As the network of our samplers, called at a time."""
        time = timestep[0].item()
        if time not in self.levels:
            self.levels[time] = self.schedule.alpha(timestep[0]).item(), self.schedule.sigma(timestep[0]).item()
        return dl.DiffusionOutput(self.denoise(x, *self.levels[time]))

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """``E[x0 | x]`` for ``x = alpha x0 + sigma noise``."""
        self.calls += 1
        x = x.double()
        total = alpha**2 * self.variances + sigma**2
        distance = x.square().sum(1, keepdim=True) - 2 * alpha * x @ self.means.T + alpha**2 * self.squares
        share = (-0.5 * (distance / total + x.shape[1] * total.log())).softmax(1)
        return (share * (sigma**2 / total)) @ self.means + (share @ (alpha * self.variances / total))[:, None] * x


class Problem(NamedTuple):
    """What every solver is given, and what it should find.

    Attributes:
        name: process and data.
        schedule: the process.
        predictor: of clean data.
        oracle: the network.
        start: noisy data at the schedule's last time, ``[b, d]``.
        exact: where the probability flow takes it at clean data, ``[b, d]``.
        estimate: the estimate of clean data where the flow takes it at the least noise of the schedule.
    """

    name: str
    schedule: dl.Schedule
    predictor: dl.Predictor
    oracle: Oracle
    start: Tensor
    exact: Tensor
    estimate: Tensor


def distance(x: Tensor, y: Tensor) -> float:
    """Mean over the batch of the root mean square over the dimensions of ``x - y``; infinite if x is not finite."""
    value = (x - y).square().mean(1).sqrt().mean().item()
    return value if math.isfinite(value) else math.inf


def problem(process: str, mixture: str, count: int | None = None) -> Problem:
    """The problem of a process and a mixture, always with the same noise for a number of samples."""
    make, usual = MIXTURES[mixture]
    schedule, data = PROCESSES[process](), make()
    predictor = dl.TargetPredictor(schedule)
    oracle = Oracle(schedule, data)
    shape = (count or usual, data.means.shape[1])
    start = schedule.sample_prior(shape, torch.Generator().manual_seed(1), dtype=torch.float64)
    times = torch.tensor([schedule.terminal, schedule.first, schedule.clean], dtype=torch.float64)
    exact, least = (probability_flow(data, start, *schedule.levels(times[[0, i]])) for i in (2, 1))
    ideal = dl.IdealDenoiser(predictor, data.means, data.std)
    estimate = ideal.denoise(least, schedule.at(times[1], least))
    return Problem(f"{process}-{mixture}", schedule, predictor, oracle, start, exact, estimate)


def probability_flow(data: Mixture, x: Tensor, t: dl.NoiseLevel, s: dl.NoiseLevel, tolerance: float = 1e-12) -> Tensor:
    """Where the exact flow that is at x at the noise level t is at s.

    On the circle ``alpha = cos a, sigma = sin a`` every process is the same,
    ``dx / da = -sin(a) x0 + cos(a) eps``, finite from pure noise to clean data. Dormand and Prince's method of
    order 8 (scipy), with the mixture's formulas written here a second time.
    """
    from scipy.integrate import solve_ivp

    means, variances, shape = data.means.numpy(), data.std.double().numpy() ** 2, x.shape

    def slope(angle: float, flat: np.ndarray) -> np.ndarray:
        cos, sin = math.cos(angle), math.sin(angle)
        away = flat.reshape(shape)[:, None] - cos * means  # [b, k, d]
        total = cos**2 * variances + sin**2  # [k, 1]
        log_share = -0.5 * ((away**2 / total).sum(-1) + means.shape[1] * np.log(total[:, 0]))
        share = np.exp(log_share - log_share.max(1, keepdims=True))
        share = (share / share.sum(1, keepdims=True))[..., None]
        x0 = (share * (means + cos * variances / total * away)).sum(1)
        eps = (share * sin / total * away).sum(1)
        return (cos * eps - sin * x0).ravel()

    radius = [math.hypot(level.alpha, level.sigma) for level in (t, s)]
    angles = [math.atan2(level.sigma, level.alpha) for level in (t, s)]
    begin = (x / radius[0]).numpy().ravel()
    solution = solve_ivp(slope, angles, begin, method="DOP853", rtol=tolerance, atol=tolerance / 10)
    return radius[1] * torch.from_numpy(solution.y[:, -1].reshape(shape))
