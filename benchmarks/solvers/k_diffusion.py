"""k-diffusion's deterministic solvers, in float64 on our grids.

They work in ``x / alpha``, with ``sigma / alpha`` as the noise, so every process is the same to them. Those without
a grid of their own go on to a noise of 0, which is the estimate of clean data at the last time for all but lms: it is
here with its own last step, and with the estimate. dpm_fast and dpm_adaptive end at the least noise, and the
estimate there is their sample.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import k_diffusion_sampling
from benchmarks.solvers.oracle import Problem
from benchmarks.solvers.ours import Case, grids

NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("sample_euler", {}),
    "heun": ("sample_heun", {}),
    "dpm_2": ("sample_dpm_2", {}),
    **{f"lms, order {order}": ("sample_lms", {"order": order}) for order in (2, 3, 4)},
    "dpmpp_2s": ("sample_dpmpp_2s_ancestral", {"eta": 0.0}),
    "dpmpp_2m": ("sample_dpmpp_2m", {}),
    "dpmpp_sde, eta 0": ("sample_dpmpp_sde", {"eta": 0.0}),
    "dpmpp_2m_sde midpoint, eta 0": ("sample_dpmpp_2m_sde", {"eta": 0.0, "solver_type": "midpoint"}),
    "dpmpp_2m_sde heun, eta 0": ("sample_dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}),
    "dpmpp_3m_sde, eta 0": ("sample_dpmpp_3m_sde", {"eta": 0.0}),
}
STOCHASTIC = {
    "euler_ancestral": "sample_euler_ancestral",
    "dpm_2_ancestral": "sample_dpm_2_ancestral",
    "dpmpp_2s_ancestral": "sample_dpmpp_2s_ancestral",
    "dpmpp_sde": "sample_dpmpp_sde",
    "dpmpp_2m_sde": "sample_dpmpp_2m_sde",
    "dpmpp_3m_sde": "sample_dpmpp_3m_sde",
}
WITH_NOISE = ("sample_dpmpp_2s_ancestral", "sample_dpmpp_sde", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde")


def cases() -> Iterator[Case]:
    """Each solver on each grid."""
    sampling = k_diffusion_sampling()
    for name, (function, options) in NAMES.items():
        more = {"noise_sampler": no_noise} if function in WITH_NOISE else {}
        solve = partial(getattr(sampling, function), disable=True, **options, **more)
        for grid_name, grid in grids().items():
            yield Case("k-diffusion", name, grid_name, partial(run, solve, grid, True))
            if name.startswith("lms"):
                yield Case("k-diffusion", f"{name}, estimate last", grid_name, partial(run, solve, grid, False))
    yield Case("k-diffusion", "dpm_fast", "its own", partial(run_fast, sampling))
    for order in (2, 3):
        yield Case(
            "k-diffusion", f"dpm_adaptive, order {order}", "its own", partial(run_adaptive, sampling, order), True
        )


def stochastic_cases() -> Iterator[Case]:
    """Each stochastic solver on each grid, with torch's global generator."""
    sampling = k_diffusion_sampling()
    for name, function in STOCHASTIC.items():
        for grid_name, grid in grids().items():
            solve = partial(run_stochastic, getattr(sampling, function), grid)
            yield Case("k-diffusion", name, grid_name, solve)


def run_stochastic(solve: Callable[..., Tensor], grid: Callable[..., Tensor], problem: Problem, steps: int) -> Tensor:
    """The sample with the noise of a Brownian path."""
    return run(partial(solve, disable=True, noise_sampler=Brownian(problem.start)), grid, True, problem, steps)


class Brownian:
    """Increments of a Brownian path over sigma, divided by their spread, as its solvers ask for them.

    dpmpp_sde asks for two that begin together in each step, and the longer contains the shorter. That is what the
    ``BrownianTree`` of torchsde gives it too, much slower, as it can also go back.
    """

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.begin = self.end = -1.0
        self.increment = torch.zeros_like(like)

    def __call__(self, sigma: Tensor, following: Tensor) -> Tensor:
        if self.begin != float(sigma):
            self.begin = self.end = float(sigma)
            self.increment = torch.zeros_like(self.like)
        spread = abs(float(following) - self.end) ** 0.5
        self.increment = self.increment + spread * torch.randn_like(self.like)
        self.end = float(following)
        return self.increment / abs(self.end - self.begin) ** 0.5


def no_noise(sigma: Tensor, following: Tensor) -> float:
    """In the place of the noise of a stochastic solver at eta = 0."""
    return 0.0


def model(problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    """The oracle with k-diffusion's signature."""
    return lambda x, sigma: problem.oracle.denoise(x, 1.0, sigma[0].item())


def ratios(problem: Problem, times: Tensor) -> Tensor:
    """``sigma / alpha`` at times."""
    return problem.schedule.sigma(times) / problem.schedule.alpha(times)


def run(solve: Callable[..., Tensor], grid: Callable[..., Tensor], clean: bool, problem: Problem, steps: int) -> Tensor:
    """The sample on one of our grids, by its own last step to clean data, or by the estimate there."""
    times = grid(problem.schedule, steps)
    sigmas, denoise = ratios(problem, times), model(problem)
    x = problem.start / problem.schedule.alpha(times[:1])
    if clean:
        return solve(denoise, x, torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]))
    return denoise(solve(denoise, x, sigmas), sigmas[-1:])


def ends(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """The most and the least noise, and the start in ``x / alpha``."""
    times = torch.tensor([problem.schedule.terminal, problem.schedule.first], dtype=torch.float64)
    most, least = ratios(problem, times)
    return most, least, problem.start / problem.schedule.alpha(times[:1])


def run_fast(sampling: Any, problem: Problem, steps: int) -> Tensor:
    """DPM-Solver-fast, with its steps uniform in log-SNR."""
    most, least, start = ends(problem)
    x = start
    if steps > 1:
        x = sampling.sample_dpm_fast(model(problem), x, least, most, steps - 1, disable=True)
    return problem.oracle.denoise(x, 1.0, least.item() if steps > 1 else most.item())


def run_adaptive(sampling: Any, order: int, problem: Problem, steps: int) -> Tensor:
    """DPM-Solver with adaptive steps, at the tightest tolerance that takes no more than so many calls."""
    most, least, start = ends(problem)
    before, best, calls = problem.oracle.calls, None, 0
    for tolerance in torch.logspace(0.5, -6, 14).tolist():
        problem.oracle.calls = 0
        options = {"order": order, "rtol": tolerance, "atol": tolerance / 10, "h_init": 1.0, "disable": True}
        x = sampling.sample_dpm_adaptive(model(problem), start, least, most, **options)
        x = problem.oracle.denoise(x, 1.0, least.item())
        if problem.oracle.calls > steps:
            break
        best, calls = x, problem.oracle.calls
    problem.oracle.calls = before + calls
    if best is None:
        raise ValueError("no tolerance is loose enough")
    return best
