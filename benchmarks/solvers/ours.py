"""Our samplers and grids: a factory for each, from the public names."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor

import diffusion_labs as dl
from benchmarks.solvers.oracle import Problem

# Deterministic ones; a solver whose order can be chosen is there once for each that is useful
DETERMINISTIC: dict[str, Callable[..., dl.Sampler]] = {
    "DDIM": dl.DDIMSampler,
    "Euler": dl.EulerSampler,
    "Heun": dl.HeunSampler,
    "DPM2": dl.DPM2Sampler,
    "DPM-Solver++ 2S": dl.DPMSolverPP2SSampler,
    "DPM-Solver++ 2M": dl.DPMSolverPP2MSampler,
    "DPM-Solver++ 3M": dl.DPMSolverPP3MSampler,
    **{f"UniPC {order}": partial(dl.UniPCSampler, order=order) for order in (1, 2, 3)},
    **{f"DEIS {order}": partial(dl.DEISSampler, order=order) for order in (2, 3, 4)},
    **{f"LMS {order}": partial(dl.LMSSampler, order=order) for order in (2, 3, 4)},
}

STOCHASTIC: dict[str, Callable[..., dl.Sampler]] = {
    "DDPM": dl.DDPMSampler,
    "DDPM, large variance": partial(dl.DDPMSampler, variance_value=1.0),
    "DDIM, eta 0.5": partial(dl.DDIMSampler, eta=0.5),
    "Euler ancestral": dl.EulerAncestralSampler,
    "DPM2 ancestral": dl.DPM2AncestralSampler,
    "SDE-DPM-Solver++ 2M": dl.DPMSolverPPSDE2MSampler,
    "EDM stochastic, churn 10": partial(dl.EDMStochasticSampler, churn=10.0),
}

# all_steps takes no number of steps; leading starts below the noise that the sample has, so no flow is exact for it
NOT_COMPARED = {"all_steps", "leading"}


def grids() -> dict[str, Callable[[dl.Schedule, int], Tensor]]:
    """Every public grid by name."""
    functions = {name: getattr(dl, name) for name in dl.__all__ if inspect.isfunction(getattr(dl, name))}
    return {
        name: function
        for name, function in functions.items()
        if list(inspect.signature(function).parameters)[:2] == ["schedule", "steps"] and name not in NOT_COMPARED
    }


class Case(NamedTuple):
    """A solver on a grid.

    Attributes:
        library: whose it is.
        solver: its name.
        grid: the name of its grid.
        run: ``run(problem, steps)`` returns its sample; the problem's oracle counts the calls.
        takes_budget: whether ``steps`` is the most calls that it may make, not the number of steps.
    """

    library: str
    solver: str
    grid: str
    run: Callable[[Problem, int], Tensor]
    takes_budget: bool = False


def cases(samplers: dict[str, Callable[..., dl.Sampler]] = DETERMINISTIC) -> Iterator[Case]:
    """Each of our samplers on each grid."""
    for name, sampler in samplers.items():
        for grid_name, grid in grids().items():
            yield Case("diffusion_labs", name, grid_name, partial(run, sampler, grid))


def run(sampler: Callable[..., dl.Sampler], grid: Callable[..., Tensor], problem: Problem, steps: int) -> Tensor:
    """The sample of one of our samplers."""
    parts = problem.oracle, problem.schedule, problem.predictor
    built = sampler(*parts, eval_steps=steps, grid=grid, progress_bar=False).eval()
    sample: Tensor = built(problem.start)
    return sample
