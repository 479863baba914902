"""How time and memory grow with the work: batch, pixels, width and steps.

    python -m benchmarks scaling --out runs/performance

Time for each FLOP must not grow with the work, beyond the smallest sizes, and memory must be linear in the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.speed.machine import prepare
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.ours import Ours
from benchmarks.speed.rounds import interleaved, median
from benchmarks.speed.section import Claim, Plot, Section, Table
from benchmarks.speed.sizes import QUICK, Sizes, trainer, training_flops

BAR = 1.15
STEPS = (10, 100, 1000)
MEMORY_BATCHES = (1, 4, 16, 64)
KINDS = {"sampling": "one call of the network without gradients", "training": "a training step"}

Point = tuple[Sizes, int]
"""Sizes and a batch size."""


@dataclass(frozen=True)
class Options:
    """Of the measurement.

    Attributes:
        out: folder for the figures.
        rounds: how many.
        threads: of torch.
        quick: two rounds of a small network, and less work: to try the benchmark, not for figures.
    """

    out: Path = Path("runs/performance")
    rounds: int = 3
    threads: int = 2
    quick: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks scaling")
    prepare(options.threads)
    measure(options).write(options.out, arguments)


def measure(options: Options) -> Section:
    """Measure."""
    whole = Sizes(**QUICK) if options.quick else Sizes()
    rounds = 2 if options.quick else options.rounds
    per_flop = {
        (kind, axis): picoseconds(kind, points, rounds)
        for kind in KINDS
        for axis, points in axes(whole, kind, options.quick).items()
    }
    batches = MEMORY_BATCHES[:3] if options.quick else MEMORY_BATCHES
    memory = {n: peak_memory(Ours.name, whole, n, options.threads) / 2**20 for n in batches}
    return section(per_flop, memory, milliseconds_of_steps(rounds, options.quick))


def axes(whole: Sizes, kind: str, quick: bool) -> dict[str, dict[int, Point]]:
    """What grows, by its value; the rest is as in the other measurements, with a batch of 8."""
    batches = (1, 4, 16, 64, 256) if kind == "sampling" else (1, 4, 16, 64)
    found: dict[str, dict[int, Point]] = {
        "batch": {n: (whole, n) for n in batches},
        "pixels a side": {n: (replace(whole, size=n), 8) for n in (16, 32, 64)},
        "width": {n: (replace(whole, width=n), 8) for n in (32, 64, 128)},
    }
    return {axis: dict(list(points.items())[:2]) for axis, points in found.items()} if quick else found


def picoseconds(kind: str, points: Mapping[int, Point], rounds: int) -> dict[int, float]:
    """The time for each FLOP at each point."""
    ours = Ours()
    calls: dict[str, Callable[[], Any]] = {}
    flops = {}
    for n, (sizes, batch_size) in points.items():
        network, share = ours.network(sizes), 1.0
        if kind == "training":
            calls[str(n)] = trainer(ours, network, sizes, batch_size)
        else:
            calls[str(n)], share = inference(network.eval(), sizes, batch_size), 1 / 3
        flops[n] = training_flops(ours, sizes) * batch_size * share
    seconds = interleaved(calls, rounds)
    return {n: 1e12 * median(seconds, str(n)) / flops[n] for n in points}


def inference(network: Any, sizes: Sizes, batch_size: int) -> Callable[[], Any]:
    """A call of the network without gradients."""
    x, label = sizes.images(batch_size)
    return torch.no_grad()(lambda: network(x, torch.full((batch_size,), 500), {"class": label}))


def milliseconds_of_steps(rounds: int, quick: bool) -> dict[int, float]:
    """The time of each step of DDIM in a number of steps, with a small network."""
    ours, sizes = Ours(), Sizes(mults=(1, 1), num_res_blocks=1, size=8, dropout=0.0)
    network = ours.network(sizes).eval()
    noise, label = sizes.images(1)
    calls: dict[str, Callable[[], Any]] = {}
    for n in STEPS[:2] if quick else STEPS:
        sample = ours.sample(network, sizes, n, 1.0)
        calls[str(n)] = lambda sample=sample: sample(noise, label)
    seconds = interleaved(calls, rounds)
    return {int(n): 1000 * median(seconds, n) / int(n) for n in calls}


def growth(values: Mapping[int, float], *, skip: int = 1) -> float:
    """How many times as large a value is as an earlier one, at the most, without the first ``skip``; 1 if none is."""
    largest, least = 1.0, float("inf")
    for value in list(values.values())[skip:]:
        least = min(least, value)
        largest = max(largest, value / least)
    return largest


def section(
    per_flop: Mapping[tuple[str, str], Mapping[int, float]], memory: Mapping[int, float], steps: Mapping[int, float]
) -> Section:
    """The figures as a section of the page."""
    claims = [
        Claim(f"{kind}: growth of the time for each FLOP with the {axis}", growth(values), BAR, at_most=True)
        for (kind, axis), values in per_flop.items()
    ]
    slopes = {n: (high - low) / (n - m) for (m, low), (n, high) in pairwise(memory.items())}
    claims.append(Claim("growth of the memory for each further image", growth(slopes), BAR, at_most=True))
    claims.append(Claim("growth of the time of a step with their number", growth(steps, skip=0), BAR, at_most=True))
    tables = [
        Table(f"{kind}, {axis}", [axis, "ps a FLOP"], [[str(n), f"{value:.2f}"] for n, value in values.items()])
        for (kind, axis), values in per_flop.items()
    ]
    memory_rows = [[str(n), f"{value:.0f}", f"{slopes[n]:.2f}" if n in slopes else "-"] for n, value in memory.items()]
    return Section(
        "scaling",
        "Cost as the work grows",
        "The network of the training, one size changed at a time, with a batch of 8 where it is not the batch; "
        + "; ".join(f"*{kind}* is {what}" for kind, what in KINDS.items())
        + ". Growth is the largest ratio of a value to one at less work, without the smallest size: 1 is what is never "
        "dearer than before. Memory is that of the tensors of a training step. Steps are those of DDIM with a small "
        "network and one image.",
        claims,
        [
            *tables,
            Table("Memory of a training step", ["batch", "MiB", "MiB for each further image"], memory_rows),
            Table("Steps", ["steps", "ms a step"], [[str(n), f"{value:.3f}"] for n, value in steps.items()]),
        ],
        [
            Plot(
                f"Time for each FLOP, {kind}",
                "of the smallest size",
                "ps a FLOP",
                {axis: relative(values) for (of, axis), values in per_flop.items() if of == kind},
                log="x",
            )
            for kind in KINDS
        ],
    )


def relative(values: Mapping[int, float]) -> list[list[float]]:
    """Points over the size as a multiple of the smallest."""
    first = next(iter(values))
    return [[n / first, value] for n, value in values.items()]
