"""What a benchmark found: plain data, written as JSON, from which the page is made."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.machine import described
from diffusion_labs.files import write_json


@dataclass(frozen=True)
class Claim:
    """A figure, and the bar that it must reach.

    Attributes:
        question: what is asked.
        figure: what was measured.
        bar: the least, or the most if ``at_most``, that the figure may be.
        at_most: which of the two.
        unit: of both.
    """

    question: str
    figure: float
    bar: float
    at_most: bool = False
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure reaches the bar."""
        return self.figure <= self.bar if self.at_most else self.figure >= self.bar


@dataclass(frozen=True)
class Table:
    """A table: columns are names, cells text or numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class Plot:
    """A picture: bars if a series is one number, else lines through points ``(x, y)``.

    Attributes:
        title: above it.
        x_label: below it.
        y_label: beside it.
        series: by name.
        log: which axes are logarithmic: "", "x", "y" or "xy".
        line: the value of y, or of x for bars, that a line marks, such as a bar to reach.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Any]
    log: str = ""
    line: float | None = None


@dataclass(frozen=True)
class Section:
    """What a benchmark found.

    Attributes:
        name: of the benchmark.
        title: of its part of the page.
        text: what was measured, and how; Markdown.
        claims: with bars.
        tables: all figures.
        plots: of some of them.
    """

    name: str
    title: str
    text: str
    claims: Sequence[Claim] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def write(self, out: Path, arguments: Sequence[str]) -> None:
        """Write ``NAME.json`` into a folder, with the machine and the command, and print the claims."""
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{self.name}.json"
        command = " ".join(["python -m benchmarks", self.name, *arguments])
        write_json(path, {**asdict(self), "machine": described(), "command": command})
        for claim in self.claims:
            print(f"{'holds' if claim.holds else 'FAILS'}: {claim.question}: {claim.figure:.3g} (bar {claim.bar:g})")
        print(path, file=sys.stderr)


def read(path: Path) -> Section:
    """The section of a file."""
    content = json.loads(path.read_text())
    parts = {
        "claims": [Claim(**claim) for claim in content["claims"]],
        "tables": [Table(**table) for table in content["tables"]],
        "plots": [Plot(**plot) for plot in content["plots"]],
    }
    return Section(**{**content, **parts})
