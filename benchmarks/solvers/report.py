"""The page of measurements: every table and every sentence with a number comes from the runs."""

import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from benchmarks.markdown import table
from benchmarks.solvers.measure import LIBRARIES, Run
from benchmarks.solvers.ours import grids
from benchmarks.solvers.stochastic import Weak

OURS = "diffusion_labs"
PROCESS_NAMES = {"vp": "Stable Diffusion's steps", "edm": "EDM", "flow": "rectified flow"}
NAMED = (5, 10, 20, 50)  # budgets for which the best is named
COLUMNS = (5, 10, 20, 50, 100)  # those of wide tables


class Choice(NamedTuple):
    """A solver on a grid, and how many times the error of the best of ours it makes, as a geometric mean."""

    solver: str
    grid: str
    factor: float


def page(runs: Sequence[Run], weak: Sequence[Weak], picture: str) -> str:
    """The whole page, Markdown."""
    sections = [
        header(runs),
        choosing(runs),
        libraries(runs, picture),
        solvers(runs),
        grid_section(runs),
        last_step(runs),
        stochastic(weak),
        method(runs),
    ]
    return "\n\n".join(sections) + "\n"


def header(runs: Sequence[Run]) -> str:
    """What the page is."""
    measured = {run.library for run in runs} - {OURS}
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", *sorted(measured)))
    return f"""# Solvers: error against calls of the network

<!-- Made by `make solver-report`; what is written here by hand is lost. -->

`make solver-report` measures every deterministic solver of this library, and those of diffusers, k-diffusion and
azula, where the exact network and the exact answer are known: the probability flow of mixtures of Gaussians. The errors
are those of the solver alone. Which image a person prefers at 20 calls, they do not tell; which solver is closest to
the sample that the network defines, they do. Measured with {packages}."""


def choosing(runs: Sequence[Run]) -> str:
    """The best solver for each budget."""
    ours = [run for run in runs if run.library == OURS]
    rows, sentences = [], []
    for budget in (budget for budget in NAMED if budget in budgets(runs)):
        first, second, *_ = ranked(ours, budget)
        sentences.append(
            f"- **{budget} calls: {first.solver} on `{first.grid}`**, {first.factor:.2f} times the error of our best "
            f"for each problem (geometric mean); next {second.solver} on `{second.grid}`, {second.factor:.2f} times."
        )
        cells = [ranked([run for run in ours if run.process == process], budget)[0] for process in processes(runs)]
        rows.append([str(budget), *(f"{c.solver}, `{c.grid}`" for c in cells)])
    names = [PROCESS_NAMES[process] for process in processes(runs)]
    return "\n\n".join(
        [
            "## Which to choose",
            "\n".join(sentences),
            "For one process, over both sets of data:",
            table(["calls", *names], rows),
        ]
    )


def libraries(runs: Sequence[Run], picture: str) -> str:
    """The best of each library at each budget."""
    parts = ["## Beside other libraries", f"![Error against calls, the best of each library]({picture})"]
    behind, points = [], 0
    for process, mixture in problems(runs):
        here = [run for run in runs if (run.process, run.mixture) == (process, mixture)]
        rows = []
        for budget in budgets(runs):
            best = {
                name: least(run for run in here if (run.library, run.budget) == (name, budget)) for name in LIBRARIES
            }
            measured = {name: run for name, run in best.items() if run}
            lowest = min(run.error for run in measured.values())
            rows.append([str(budget), *(cell(measured.get(name), lowest) for name in LIBRARIES)])
            points += 1
            if measured[OURS].error > 1.01 * lowest:
                winner = min(measured.values(), key=lambda run: run.error)
                behind.append(
                    f"- {PROCESS_NAMES[process]}, {mixture}, {budget} calls: {winner.library}'s {winner.solver} on "
                    f"`{winner.grid}`, {winner.error:.1e}; ours {measured[OURS].error:.1e}, {measured[OURS].solver}"
                )
        parts += [f"### {PROCESS_NAMES[process]}, {mixture}", table(["calls", *LIBRARIES], rows)]
    summary = (
        f"Our best is at least as accurate as the best of the others, to 1%, at {points - len(behind)} of the {points} "
        "problems and budgets. In each cell is the best solver and grid of a library."
    )
    if behind:
        summary += " Another library's is more accurate here:\n\n" + "\n".join(behind)
    return "\n\n".join([*parts[:2], summary, *parts[2:]])


def solvers(runs: Sequence[Run]) -> str:
    """Each of our solvers on its best grid."""
    parts = [
        "## Our solvers",
        "Each on its best grid: geometric means of its errors on both sets of data, the best solver at each budget in "
        "bold. Solvers that call the network several times a step have fewer steps for their calls. The last column "
        "is the mean factor over the best, which ranks them.",
    ]
    for process in processes(runs):
        here = [run for run in runs if run.library == OURS and run.process == process]
        errors = {
            name: [best_mean([r for r in here if r.solver == name and r.budget == n]) for n in columns(runs)]
            for name in dict.fromkeys(run.solver for run in here)
        }
        lowest = [min(column) for column in zip(*errors.values(), strict=True)]
        factors = {name: geometric_mean(e / b for e, b in zip(v, lowest, strict=True)) for name, v in errors.items()}
        rows = [
            [name, *(number(e, b) for e, b in zip(errors[name], lowest, strict=True)), f"{factors[name]:.2f}"]
            for name in sorted(factors, key=lambda name: factors[name])
        ]
        parts += [f"### {PROCESS_NAMES[process]}", table(["solver", *map(str, columns(runs)), "factor"], rows)]
    return "\n\n".join(parts)


def grid_section(runs: Sequence[Run]) -> str:
    """Each grid with its best solver."""
    ours = [run for run in runs if run.library == OURS]
    rows = []
    for name in dict.fromkeys(run.grid for run in ours):
        cells = []
        for budget in columns(runs):
            of_grid = [choice for choice in ranked(ours, budget) if choice.grid == name]
            cells.append(f"{of_grid[0].factor:.2f} {of_grid[0].solver}" if of_grid else "-")
        rows.append([f"`{name}`", *cells])
    return "\n\n".join(
        [
            "## Grids",
            "For each grid and budget, the solver that is best on it over all problems, and its factor over the best:",
            table(["grid", *map(str, columns(runs))], rows),
        ]
    )


def last_step(runs: Sequence[Run]) -> str:
    """What is left when the solver is exact: the step from the least noise to clean data."""
    rows = []
    for process, mixture in problems(runs):
        here = [r for r in runs if (r.process, r.mixture) == (process, mixture) and r.budget == max(budgets(runs))]
        best = {name: least((r for r in here if r.library == name), clean=True) for name in LIBRARIES}
        rows.append(
            [f"{PROCESS_NAMES[process]}, {mixture}"]
            + [f"{run.error_clean:.1e} {run.solver}, `{run.grid}`" if run else "-" for run in best.values()]
        )
    return "\n\n".join(
        [
            "## The last step",
            "All errors above are distances to the estimate of clean data where the exact flow arrives at the least "
            "noise of the schedule: networks are trained no further, and all our samplers end with it. The flow "
            "itself would go on to clean data, and there the estimate is off by a share `sigma^2 / (2 alpha^2 s^2)` "
            "of the spread s of the data. Linear multi-step solvers of other libraries extrapolate instead, which is "
            "closer if the network's estimates are as exact as these. The smallest distances to the flow at clean "
            "data, at "
            f"{max(budgets(runs))} calls:",
            table(["", *LIBRARIES], rows),
        ]
    )


def stochastic(weak: Sequence[Weak]) -> str:
    """Distances in distribution."""
    parts = [
        "## Stochastic solvers",
        "They have no path to compare with, so here is the distance of their samples from the distribution of the "
        "data: the mean, over 16 directions in the plane, of the Wasserstein distance of 20,000 projected samples to "
        "the projected mixture, on the best of the grids `karras`, `uniform_log_snr` and `trailing`. The row of exact "
        "samples is what the number of samples leaves; that of the exact flow adds what starting from pure noise "
        "leaves.",
    ]
    for process in dict.fromkeys(item.process for item in weak):
        here = [item for item in weak if item.process == process]
        columns = sorted({item.budget for item in here})
        names = list(dict.fromkeys((item.library, item.solver) for item in here))
        distances = {
            name: [min(i.distance for i in here if (i.library, i.solver) == name and i.budget == n) for n in columns]
            for name in names
        }
        rows = [
            [solver, library, *(f"{d:.4f}" if math.isfinite(d) else "-" for d in distances[library, solver])]
            for library, solver in names
        ]
        parts += [f"### {PROCESS_NAMES[process]}, plane", table(["solver", "library", *map(str, columns)], rows)]
    return "\n\n".join(parts)


def method(runs: Sequence[Run]) -> str:
    """How it was measured, and what could not be."""
    lines = {}
    for run in runs:
        if run.failure:
            key = f"{run.library}'s {run.solver} on `{run.grid}`", run.failure.split(";")[0][:90]
            lines.setdefault(key, set()).add(run.budget)
    failures = [f"- {name}, {', '.join(map(str, sorted(found)))} calls: {why}" for (name, why), found in lines.items()]
    count = len({(run.library, run.solver, run.grid) for run in runs})
    named = ", ".join(f"`{name}`" for name in grids())
    text = f"""## How it was measured

- **Processes**: {PROCESS_NAMES["vp"]} (scaled-linear betas, sigma / alpha from 14.6 to 0.029), {PROCESS_NAMES["edm"]}
  (80 to 0.002), {PROCESS_NAMES["flow"]} (t from 0.999 to 0.001: other libraries cannot start from pure noise).
- **Data**: `plane`, three broad components in two dimensions, 256 samples; `space`, sixteen narrow components in 64
  dimensions, 64 samples. The network is their exact denoiser, in float64, and counts its calls.
- **Truth**: the probability flow from the same noise, by the method of Dormand and Prince of order 8 with a tolerance
  of 1e-12, from formulas that share no code with the library's.
- **Error**: the mean over the samples of the root mean square over the dimensions.
- **Budgets** are calls of the network. A solver takes as many steps as they allow, the last one included.
- **Others** run on our grids, in float64: diffusers' tables are replaced by float64 ones (its Euler and flow-matching
  schedulers still step in float32). For {PROCESS_NAMES["vp"]} its schedulers are measured as they come too,
  on their own times and float32 tables ("its ..."). Multi-step solvers with a last step of their own are there with it,
  and with the estimate of clean data in its place.
- **Grids**: {named}. Not compared: `leading`, which starts below the noise of the sample.
- {count} pairs of solver and grid, {len(runs)} measurements."""
    if failures:
        text += "\n\nWithout a sample, and so not in the tables:\n\n" + "\n".join(failures)
    return text


def ranked(runs: Sequence[Run], budget: int) -> list[Choice]:
    """Solvers on grids that have a sample for every problem, the best first."""
    here = [run for run in runs if run.budget == budget]
    lowest = {key: min(r.error for r in here if (r.process, r.mixture) == key) for key in problems(here)}
    factors: dict[tuple[str, str], list[float]] = {}
    for run in here:
        factors.setdefault((run.solver, run.grid), []).append(run.error / lowest[run.process, run.mixture])
    choices = [Choice(*key, geometric_mean(values)) for key, values in factors.items() if len(values) == len(lowest)]
    return sorted((c for c in choices if math.isfinite(c.factor)), key=lambda choice: choice.factor)


def best_mean(runs: Sequence[Run]) -> float:
    """The least over the grids of the geometric mean over the data."""
    by_grid: dict[str, list[float]] = {}
    for run in runs:
        by_grid.setdefault(run.grid, []).append(run.error)
    return min((geometric_mean(errors) for errors in by_grid.values()), default=math.inf)


def least(runs: Iterable[Run], clean: bool = False) -> Run | None:
    """The run with the smallest error."""
    found = [run for run in runs if math.isfinite(run.error)]
    return min(found, key=lambda run: run.error_clean if clean else run.error, default=None)


def geometric_mean(values: Iterable[float]) -> float:
    """``exp(mean(log))``."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def problems(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The problems, in their order."""
    return list(dict.fromkeys((run.process, run.mixture) for run in runs))


def processes(runs: Sequence[Run]) -> list[str]:
    """The processes, in their order."""
    return list(dict.fromkeys(run.process for run in runs))


def budgets(runs: Sequence[Run]) -> list[int]:
    """The budgets, in their order."""
    return sorted({run.budget for run in runs})


def columns(runs: Sequence[Run]) -> list[int]:
    """The budgets of wide tables; all, if none of these was measured."""
    return [budget for budget in budgets(runs) if budget in COLUMNS] or budgets(runs)


def cell(run: Run | None, lowest: float) -> str:
    """Error, solver and grid."""
    return f"{number(run.error, lowest)} {run.solver}, `{run.grid}`" if run else "-"


def number(error: float, lowest: float) -> str:
    """An error, in bold if it is the least to 1%."""
    if not math.isfinite(error):
        return "-"
    return f"**{error:.1e}**" if error <= 1.01 * lowest else f"{error:.1e}"
