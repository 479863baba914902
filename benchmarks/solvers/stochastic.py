"""Stochastic solvers, by the distance of their samples from the data's distribution."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import diffusion_labs as dl
from benchmarks.solvers import azula, diffusers, k_diffusion, ours
from benchmarks.solvers.measure import LIBRARIES, Cost, mapping, within
from benchmarks.solvers.oracle import MIXTURES, PROCESSES, Mixture, problem
from benchmarks.solvers.ours import Case

BUDGETS = (5, 10, 20, 50)
GRIDS = ("karras", "trailing", "uniform_log_snr")
COUNT = 20_000


class Weak(NamedTuple):
    """The distance of one solver's samples on one grid at one budget."""

    process: str
    library: str
    solver: str
    grid: str
    budget: int
    distance: float


def measure_all(
    budgets: Sequence[int] = BUDGETS,
    libraries: Sequence[str] = LIBRARIES,
    processes: Sequence[str] = tuple(PROCESSES),
    workers: int | None = None,
    count: int = COUNT,
) -> list[Weak]:
    """Every stochastic solver on every process; arguments as ``measure.measure_all``'s, and the number of samples."""
    run = partial(measure_process, budgets=tuple(budgets), count=count, libraries=tuple(libraries))
    with mapping(workers) as parallel:
        return [item for items in parallel(run, processes) for item in items]


@torch.no_grad()
def measure_process(
    process: str, budgets: Sequence[int], count: int, libraries: Sequence[str] = LIBRARIES
) -> list[Weak]:
    """Every stochastic solver on one process."""
    data = MIXTURES["plane"][0]()
    whole, one = problem(process, "plane", count), problem(process, "plane", 1)
    ideal = dl.IdealDenoiser(whole.predictor, data.means, data.std)
    drawn = [sliced_distance(ideal.sample(count, torch.Generator().manual_seed(i)), data) for i in range(8)]
    known = {"exact samples": sum(drawn) / len(drawn), "the exact flow": sliced_distance(whole.exact, data)}
    found = [Weak(process, "-", name, "-", budget, known[name]) for name in known for budget in budgets]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in cases(libraries):
            cost = Cost.of(case, one)
            for budget in budgets:
                torch.manual_seed(0)
                distance = sliced_distance(within(case, whole, cost, budget), data)
                found.append(Weak(process, case.library, case.solver, case.grid, budget, distance))
    return found


def cases(libraries: Sequence[str]) -> Iterator[Case]:
    """Stochastic solvers on the three grids, and two deterministic ones to compare with."""
    compared = {name: ours.DETERMINISTIC[name] for name in ("DPM-Solver++ 2M", "UniPC 3")}
    families: dict[str, Callable[[], Iterator[Case]]] = {
        "diffusion_labs": partial(ours.cases, {**ours.STOCHASTIC, **compared}),
        "diffusers": diffusers.stochastic_cases,
        "k-diffusion": k_diffusion.stochastic_cases,
        "azula": azula.stochastic_cases,
    }
    return (case for library in libraries for case in families[library]() if case.grid in GRIDS)


def sliced_distance(x: Tensor, data: Mixture, directions: int = 16) -> float:
    """The mean over directions in the plane of the Wasserstein distance to the mixture.

    In one dimension it is ``int |F_n - F|``: F_n of the projected samples, F of the projected mixture in closed form.
    Integrated by the trapezoidal rule between all samples and points beyond the data.
    """
    angles = torch.arange(directions, dtype=torch.float64) * (math.pi / directions)
    distances = []
    for direction in torch.stack([angles.cos(), angles.sin()], 1):
        projected = (x @ direction).sort().values
        if not bool(projected.isfinite().all()):
            return math.inf
        low, high = min(-5.0, projected[0].item()), max(5.0, projected[-1].item())
        points = torch.linspace(low, high, 10_001, dtype=torch.float64)
        empirical = torch.searchsorted(projected, points, right=True) / len(projected)
        exact = torch.special.ndtr((points - (data.means @ direction)[:, None]) / data.std.double()).mean(0)
        distances.append(torch.trapezoid((empirical - exact).abs(), points).item())
    return sum(distances) / len(distances)
