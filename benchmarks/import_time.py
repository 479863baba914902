"""What ``import diffusion_labs`` costs beyond ``import torch``, and how soon ``diffusion-labs --help`` answers.

    python -m benchmarks import_time --out runs/performance

CPU seconds of imports, wall seconds of commands, each in processes of its own, in turns.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.speed.machine import prepare
from benchmarks.speed.section import Claim, Plot, Section, Table

CODE = """
import time
began = time.process_time()
import torch
torch_done = time.process_time()
import diffusion_labs
library_done = time.process_time()
for name in diffusion_labs.__all__:
    getattr(diffusion_labs, name)
print(torch_done - began, library_done - torch_done, time.process_time() - library_done)
"""
PARTS = ("import torch", "import diffusion_labs", "first use of every public name")
COMMANDS = {"diffusion-labs --help": ["--help"], "diffusion-labs train --help": ["train", "--help"]}


@dataclass(frozen=True)
class Options:
    """Of the measurement.

    Attributes:
        out: folder for the figures.
        rounds: how many.
        quick: two rounds: to try the benchmark, not for figures.
    """

    out: Path = Path("runs/performance")
    rounds: int = 7
    quick: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks import_time")
    prepare(1)
    measure(2 if options.quick else options.rounds).write(options.out, arguments)


def measure(rounds: int) -> Section:
    """Measure."""
    imports, commands = [], []
    for _ in range(rounds):
        printed = subprocess.check_output([sys.executable, "-c", CODE], text=True)
        imports.append([float(value) for value in printed.split()])
        commands.append([wall_seconds(words) for words in COMMANDS.values()])
    columns = [*zip(*imports, strict=True), *zip(*commands, strict=True)]
    figures = dict(zip([*PARTS, *COMMANDS], map(statistics.median, columns), strict=True))
    kinds = {**dict.fromkeys(PARTS, "CPU"), **dict.fromkeys(COMMANDS, "wall")}
    return Section(
        "import_time",
        "Import",
        "CPU seconds of imports, each in addition to the one before, and wall seconds of commands, in new processes.",
        [
            Claim("`import diffusion_labs` beyond torch", figures[PARTS[1]], 0.15, at_most=True, unit="CPU s"),
            Claim("`diffusion-labs --help`", figures["diffusion-labs --help"], 0.5, at_most=True, unit="s"),
        ],
        [
            Table(
                "Import and help",
                ["", "seconds", "of"],
                [[name, f"{value:.3f}", kinds[name]] for name, value in figures.items()],
            )
        ],
        [Plot("Seconds of imports and commands", "s", "", figures)],
    )


def wall_seconds(words: Sequence[str]) -> float:
    """How long the command line takes to answer."""
    began = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("diffusion-labs")), *words], check=True, capture_output=True)
    return time.perf_counter() - began
