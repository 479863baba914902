"""Error against calls of the network for every solver, ours and other libraries': docs/solvers.md and its picture.

    python -m benchmarks solver_report [--docs docs]

About ten minutes of two cores, each with one thread.
"""

from collections.abc import Sequence
from pathlib import Path

import tyro

from benchmarks.solvers import measure, plot, report, stochastic


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(write, args=arguments, prog="python -m benchmarks solver_report")


def write(docs: Path = Path("docs")) -> None:
    """Measure, and write the page and the picture.

    Args:
        docs: the folder to write ``solvers.md`` and ``solvers.svg`` into.
    """
    runs = measure.measure_all()
    weak = stochastic.measure_all()
    docs.mkdir(parents=True, exist_ok=True)
    plot.draw(runs, docs / "solvers.svg")
    (docs / "solvers.md").write_text(report.page(runs, weak, "solvers.svg"))
    print(f"{len(runs)} measurements in {docs / 'solvers.md'}")
