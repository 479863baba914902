"""Our samplers and grids: a factory for each, from the public names."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import diffusion_labs as dl
from benchmarks.solvers.oracle import Problem

# Samplers for other models than a denoiser, of weights fitted to one, and the base classes
NOT_MEASURED = {dl.Sampler, dl.MultistepSampler, dl.LCMSampler, dl.TCDSampler, dl.FittedSampler}

# Names, and settings where a solver is useful with several; any other public sampler is measured as it stands
NAMED: dict[str, Callable[..., dl.Sampler]] = {
    "DPM-Solver++ 2S": dl.DPMSolverPP2SSampler,
    "DPM-Solver++ 3S": dl.DPMSolverPP3SSampler,
    "DPM-Solver++ 2M": dl.DPMSolverPP2MSampler,
    "DPM-Solver++ 3M": dl.DPMSolverPP3MSampler,
    "DPM-Solver 2M": dl.DPMSolver2MSampler,
    "DPM-Solver 3M": dl.DPMSolver3MSampler,
    "DPM-Solver-3": dl.DPMSolver3Sampler,
    "iPNDM": dl.IPNDMSampler,
    **{f"Adams {order}": partial(dl.AdamsSampler, order=order) for order in (2, 3, 4)},
    **{f"Flow Adams {order}": partial(dl.FlowAdamsSampler, order=order) for order in (2, 3, 4)},
    **{f"UniPC {order}": partial(dl.UniPCSampler, order=order) for order in (1, 2, 3, 4)},
    **{f"DEIS {order}": partial(dl.DEISSampler, order=order) for order in (2, 3, 4)},
    **{f"LMS {order}": partial(dl.LMSSampler, order=order) for order in (2, 3, 4)},
    "DDPM, large variance": partial(dl.DDPMSampler, variance_value=1.0),
    "DDPM": dl.DDPMSampler,
    "DDIM": dl.DDIMSampler,
    "DDIM, eta 0.5": partial(dl.DDIMSampler, eta=0.5),
    "Euler ancestral": dl.EulerAncestralSampler,
    "Euler-Maruyama": dl.EulerMaruyamaSampler,
    "DPM2 ancestral": dl.DPM2AncestralSampler,
    "SDE-DPM-Solver++ 2M": dl.DPMSolverPPSDE2MSampler,
    "SDE-DPM-Solver++ 3M": dl.DPMSolverPPSDE3MSampler,
    "SA-Solver": dl.SASolverSampler,
    "EDM stochastic, churn 10": partial(dl.EDMStochasticSampler, churn=10.0),
    "RePaint, no known region": partial(dl.RePaintSampler, resamplings=2, jump_length=1),
}


def samplers() -> dict[str, Callable[..., dl.Sampler]]:
    """Every public sampler, by name."""
    public = [getattr(dl, name) for name in dl.__all__]
    solvers = {item for item in public if inspect.isclass(item) and issubclass(item, dl.Sampler)} - NOT_MEASURED
    others = solvers - {getattr(factory, "func", factory) for factory in NAMED.values()}
    return {**{item.__name__.removesuffix("Sampler"): item for item in others}, **NAMED}


def draws_noise(sampler: Callable[..., dl.Sampler]) -> bool:
    """Whether a sampler's steps are random."""
    schedule = dl.EDMSchedule()
    predictor = dl.TargetPredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.zeros(1, 2), 1.0)
    drawn = []

    def noise(x: Tensor, *_: object) -> Tensor:
        drawn.append(x)
        return torch.zeros_like(x)

    built = sampler(model, schedule, predictor, eval_steps=8, grid=dl.karras, progress_bar=False).eval()
    built(torch.ones(1, 2), generator=noise)
    return bool(drawn)


DETERMINISTIC = {name: sampler for name, sampler in samplers().items() if not draws_noise(sampler)}
STOCHASTIC = {name: sampler for name, sampler in samplers().items() if name not in DETERMINISTIC}

# all_steps takes no number of steps; leading starts below the noise that the sample has, so no flow is exact for it;
# distilled is for other models
NOT_COMPARED = {"all_steps", "leading", "distilled"}


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


def cases(chosen: dict[str, Callable[..., dl.Sampler]] = DETERMINISTIC) -> Iterator[Case]:
    """Each of our samplers on each grid; the adaptive one has no grid."""
    for name, sampler in chosen.items():
        if sampler is dl.AdaptiveSampler:
            yield Case("diffusion_labs", name, "its own", run_adaptive, True)
            continue
        for grid_name, grid in grids().items():
            yield Case("diffusion_labs", name, grid_name, partial(run, sampler, grid))


def run(sampler: Callable[..., dl.Sampler], grid: Callable[..., Tensor], problem: Problem, steps: int) -> Tensor:
    """The sample of one of our samplers."""
    parts = problem.oracle, problem.schedule, problem.predictor
    built = sampler(*parts, eval_steps=steps, grid=grid, progress_bar=False).eval()
    sample: Tensor = built(problem.start)
    return sample


def run_adaptive(problem: Problem, steps: int) -> Tensor:
    """The adaptive solver's sample at the tightest tolerance that takes no more than so many calls."""
    best, calls = None, 0
    for tolerance in torch.logspace(1, -9, 31).tolist():
        problem.oracle.calls = 0
        x = run(partial(dl.AdaptiveSampler, rtol=tolerance, atol=tolerance), dl.linspace, problem, 2)
        if problem.oracle.calls > steps:
            break
        best, calls = x, problem.oracle.calls
    problem.oracle.calls = calls
    if best is None:
        raise ValueError(f"its first step takes more than {steps} calls")
    return best
