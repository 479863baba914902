"""azula's deterministic samplers, in float64 on our grids and processes.

DDIM and Euler go on to clean data, which is the estimate of it at the last time of the grid. zAB and vAB are here
with their own last step, and with that estimate; the others, whose formulas have no limit at clean data, with it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.solvers.oracle import Problem
from benchmarks.solvers.ours import Case, grids

NAMES: dict[str, tuple[str, dict[str, int], bool]] = {  # class, options, whether it goes on to clean data
    "DDIM": ("DDIMSampler", {}, True),
    "Euler": ("EulerSampler", {}, True),
    "Heun": ("HeunSampler", {}, False),
    **{f"zAB {order}": ("zABSampler", {"order": order}, True) for order in (2, 3, 4)},
    **{f"vAB {order}": ("vABSampler", {"order": order}, True) for order in (2, 3)},
    **{f"zEAB {order}": ("zEABSampler", {"order": order}, False) for order in (2, 3)},
    **{f"xEAB {order}": ("xEABSampler", {"order": order}, False) for order in (2, 3)},
    **{f"REAB {order}": ("REABSampler", {"order": order}, False) for order in (2, 3)},
}


STOCHASTIC: dict[str, tuple[str, dict[str, float]]] = {
    "DDPM": ("DDPMSampler", {}),
    "DDIM, eta 0.5": ("DDIMSampler", {"eta": 0.5}),
    "Ito, eta 1": ("ItoSampler", {"eta": 1.0}),
}


class Denoiser:
    """The oracle as azula's denoiser: a schedule, and a call that returns the mean of clean data."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise at times."""
        return self.problem.schedule.alpha(t), self.problem.schedule.sigma(t)

    def __call__(self, x: Tensor, t: Tensor) -> Any:
        from azula.denoise import DiracPosterior

        alpha, sigma = self.schedule(t)
        return DiracPosterior(self.problem.oracle.denoise(x, alpha.item(), sigma.item()))


def cases() -> Iterator[Case]:
    """Each sampler on each grid."""
    from azula import sample

    for name, (sampler, options, clean) in NAMES.items():
        for grid_name, grid in grids().items():
            yield Case("azula", name, grid_name, partial(run, getattr(sample, sampler), options, clean, grid))
            if clean and options:
                last = partial(run, getattr(sample, sampler), options, False, grid)
                yield Case("azula", f"{name}, estimate last", grid_name, last)


def stochastic_cases() -> Iterator[Case]:
    """Each stochastic sampler on each grid, with torch's global generator."""
    from azula import sample

    for name, (sampler, options) in STOCHASTIC.items():
        for grid_name, grid in grids().items():
            yield Case("azula", name, grid_name, partial(run, getattr(sample, sampler), options, False, grid))


def run(
    sampler: Any, options: dict[str, float], clean: bool, grid: Callable[..., Tensor], problem: Problem, steps: int
) -> Tensor:
    """The sample on one of our grids."""
    times = grid(problem.schedule, steps).double()
    last = [torch.tensor([problem.schedule.clean], dtype=torch.float64)] if clean else []
    on_grid = type("OnGrid", (sampler,), {"timesteps": torch.cat([times, *last])})
    x: Tensor = problem.start
    denoiser = Denoiser(problem)
    if clean or steps > 1:
        x = on_grid(denoiser, silent=True, **options)(x)
    return x if clean else denoiser(x, times[-1]).mean
