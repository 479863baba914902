"""All questions of speed, one process each, and the page of the answers: docs/performance.md.

make bench                                        # which is python -m benchmarks performance, in .venv-peers
make bench ARGS="performance --quick --docs DIR"  # tries it, in minutes
python -m benchmarks performance --questions      # makes the page again, from the figures that there are
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.speed import overhead
from benchmarks.speed.machine import prepare
from benchmarks.speed.page import page, picture_name
from benchmarks.speed.plots import draw
from benchmarks.speed.section import read

QUESTIONS = (
    "training_speed",
    "sampling_speed",
    "time_to_accuracy",
    "sampler_overhead",
    "import_time",
    "scaling",
    "input_pipeline",
)
COMPILED = ("training_speed", "sampling_speed")


@dataclass(frozen=True)
class Options:
    """Of the whole.

    Attributes:
        questions: to measure now; the others are on the page with what ``out`` has of them.
        out: folder for the figures.
        docs: folder for the page.
        run: a trained model with classes, for ``time_to_accuracy``.
        data_dir: folder of the data sets, for ``input_pipeline``.
        threads: of torch.
        compiled: measure compiled networks, too.
        quick: to try the benchmarks, not for figures.
    """

    questions: tuple[str, ...] = QUESTIONS
    out: Path = Path("runs/performance")
    docs: Path = Path("docs")
    run: Path = Path("runs/ldm-mnist")
    data_dir: Path = Path("data")
    threads: int = 2
    compiled: bool = True
    quick: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks performance")
    failed = [name for name in options.questions if not carried_out(name, options)]
    write_page(options.out, options.docs)
    if failed:
        sys.exit(f"without an answer: {', '.join(failed)}")


def carried_out(name: str, options: Options) -> bool:
    """Measure one question in a process of its own, and say how long it took."""
    began, arguments = time.perf_counter(), arguments_of(name, options)
    options.out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-m", "benchmarks", name, *arguments]).returncode == 0
    if done and name == "sampler_overhead":
        prepare(1)  # as it does
        overhead.section(json.loads((options.out / overhead.FILE).read_text())).write(options.out, arguments)
    print(f"{name}: {'done' if done else 'FAILED'} in {time.perf_counter() - began:.0f} s", flush=True)
    return done


def arguments_of(name: str, options: Options) -> list[str]:
    """The arguments of one question."""
    arguments = ["--out", str(options.out)]
    if name == "sampler_overhead":
        return [*arguments, *["--repetitions", "2"] * options.quick]
    if name != "import_time":
        arguments += ["--threads", str(options.threads)]
    if name == "time_to_accuracy":
        arguments += ["--run", str(options.run)]
    if name == "input_pipeline":
        arguments += ["--data-dir", str(options.data_dir)]
    if name in COMPILED and options.compiled:
        arguments.append("--compiled")
    return [*arguments, *["--quick"] * options.quick]


def write_page(out: Path, docs: Path) -> None:
    """Write the page and its pictures from the figures of a folder."""
    found = [name for name in QUESTIONS if (out / f"{name}.json").exists()]
    sections = [read(out / f"{name}.json") for name in found]
    for section in sections:
        for i, plot in enumerate(section.plots):
            draw(plot, docs / "performance" / picture_name(section, i))
    docs.mkdir(parents=True, exist_ok=True)
    missing = [name for name in QUESTIONS if name not in found]
    (docs / "performance.md").write_text(page(sections, missing, "performance"))
    print(docs / "performance.md")
