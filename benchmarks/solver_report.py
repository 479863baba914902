"""Error against calls of the network for every solver, ours and other libraries': docs/solvers.md and its picture.

    python -m benchmarks solver_report [--budgets 5 10 20 50]

About twenty minutes of two cores.
"""

from collections.abc import Sequence
from pathlib import Path

import tyro

from benchmarks.solvers import measure, plot, report, stochastic
from benchmarks.solvers.oracle import PROCESSES


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(write, args=arguments, prog="python -m benchmarks solver_report")


def write(
    docs: Path = Path("docs"),
    budgets: tuple[int, ...] = measure.BUDGETS,
    libraries: tuple[str, ...] = measure.LIBRARIES,
    processes: tuple[str, ...] = tuple(PROCESSES),
    workers: int | None = None,
    samples: int = stochastic.COUNT,
) -> None:
    """Measure, and write the page and the picture.

    Args:
        docs: the folder to write ``solvers.md`` and ``solvers.svg`` into.
        budgets: calls of the network.
        libraries: whose solvers.
        processes: on which processes.
        workers: operating system processes; as many as there are cores if not given.
        samples: for each stochastic solver.
    """
    runs = measure.measure_all(budgets, libraries, processes, workers)
    some = [budget for budget in stochastic.BUDGETS if budget in budgets]
    weak = stochastic.measure_all(some, libraries, processes, workers, samples)
    docs.mkdir(parents=True, exist_ok=True)
    plot.draw(runs, docs / "solvers.svg")
    (docs / "solvers.md").write_text(report.page(runs, weak, "solvers.svg"))
    print(f"{len(runs)} measurements in {docs / 'solvers.md'}")
