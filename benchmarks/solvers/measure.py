"""Errors at budgets of network calls."""

import math
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.solvers import azula, diffusers, k_diffusion, ours
from benchmarks.solvers.oracle import MIXTURES, PROCESSES, Problem, distance, problem
from benchmarks.solvers.ours import Case

BUDGETS = (5, 6, 8, 10, 15, 20, 30, 50, 75, 100)
CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "diffusion_labs": ours.cases,
    "diffusers": diffusers.cases,
    "k-diffusion": k_diffusion.cases,
    "azula": azula.cases,
}
LIBRARIES = tuple(CASES)


class Run(NamedTuple):
    """One solver on one grid at one budget.

    Attributes:
        process: name of the process.
        mixture: name of the data.
        library: whose solver it is.
        solver: its name.
        grid: the name of its grid.
        budget: the most calls that it may make.
        calls: those that it made.
        error: distance of its sample to the estimate of clean data at the end of the exact flow.
        error_clean: distance to the exact flow at clean data.
        failure: why it has no sample, if it has none.
    """

    process: str
    mixture: str
    library: str
    solver: str
    grid: str
    budget: int
    calls: int
    error: float
    error_clean: float
    failure: str = ""


def measure_all(
    budgets: Sequence[int] = BUDGETS,
    libraries: Sequence[str] = LIBRARIES,
    processes: Sequence[str] = tuple(PROCESSES),
    workers: int | None = None,
) -> list[Run]:
    """Every solver on every problem.

    Args:
        budgets: calls of the network.
        libraries: whose solvers.
        processes: on which processes.
        workers: operating system processes, of one thread each; as many as there are cores if ``None``.
    """
    names = list(product(processes, MIXTURES))
    run = partial(measure_problem, budgets=tuple(budgets), libraries=tuple(libraries))
    found = []
    with mapping(workers) as parallel:
        for (process, mixture), runs in zip(names, parallel(run, *zip(*names, strict=True)), strict=True):
            print(f"{process}, {mixture}: {len(runs)} measurements", flush=True)
            found += runs
    return found


@contextmanager
def mapping(workers: int | None) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map`` over so many processes of one thread; the usual one for 1."""
    if workers == 1:
        yield map
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            yield pool.map


def measure_problem(process: str, mixture: str, budgets: Sequence[int], libraries: Sequence[str]) -> list[Run]:
    """Every solver of some libraries on one problem."""
    whole, one = problem(process, mixture), problem(process, mixture, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries', about numpy and about tensors made of tensors
        return [run for case in cases(process, libraries) for run in measure(case, whole, one, budgets)]


def cases(process: str, libraries: Sequence[str]) -> Iterator[Case]:
    """All solvers of some libraries that a process allows."""
    for library in libraries:
        yield from CASES[library]()
        if library == "diffusers" and process == "vp":
            yield from diffusers.stock_cases()


@torch.no_grad()
def measure(case: Case, whole: Problem, one: Problem, budgets: Sequence[int]) -> Iterator[Run]:
    """The errors of a solver at each budget."""
    cost = None
    for budget in budgets:
        try:
            cost = cost or Cost.of(case, one)
            x = within(case, whole, cost, budget)
            found = whole.oracle.calls, distance(x, whole.estimate), distance(x, whole.exact), ""
        except (ValueError, IndexError, AssertionError, ZeroDivisionError) as failure:
            found = 0, math.inf, math.inf, str(failure) or type(failure).__name__
        yield Run(*whole.name.split("-"), case.library, case.solver, case.grid, budget, *found)


class Cost(NamedTuple):
    """Network calls of a solver: some for four steps, and some for each more."""

    four: int
    more: float

    @classmethod
    def of(cls, case: Case, one: Problem) -> "Cost":
        """Count them."""
        if case.takes_budget:
            return cls(4, 1)
        four, eight = calls_of(case, one, 4), calls_of(case, one, 8)
        return cls(four, (eight - four) / 4)


def within(case: Case, whole: Problem, cost: Cost, budget: int) -> Tensor:
    """The sample with the most steps that a budget allows; the oracle then says how many calls it took."""
    steps = max(1, 4 + math.floor((budget - cost.four) / cost.more))
    while True:
        whole.oracle.calls = 0
        x = case.run(whole, steps)
        if whole.oracle.calls <= budget:
            return x
        steps -= 1
        if steps < 1:
            raise ValueError(f"its first step takes more than {budget} calls")


def calls_of(case: Case, one: Problem, steps: int) -> int:
    """Network calls of a number of steps."""
    one.oracle.calls = 0
    case.run(one, steps)
    return one.oracle.calls
