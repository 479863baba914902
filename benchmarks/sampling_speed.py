"""Time of a guided sampling step of the same network, against other libraries.

    python -m benchmarks sampling_speed --out runs/performance

DDIM with both halves of guidance in one batch, with guidance in half of the steps, and without.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.speed.libraries import LIBRARIES
from benchmarks.speed.machine import prepare
from benchmarks.speed.ours import Ours
from benchmarks.speed.rounds import Seconds, fastest, interleaved, median, ratio, spread
from benchmarks.speed.section import Claim, Plot, Section, Table
from benchmarks.speed.sizes import QUICK, Sizes, matched, training_flops

HALF, PLAIN = "guided in half of the steps", "scale 1"
SCALE = 3.0
ALWAYS_GUIDED = ("denoising-diffusion-pytorch",)  # its DDIM fails at scale 1, where it expects two outputs of one


@dataclass(frozen=True)
class Options:
    """Of the measurement.

    Attributes:
        out: folder for the figures.
        rounds: how many.
        batch_size: images.
        steps: of a timed call, an even number.
        threads: of torch.
        compiled: measure each network compiled, too.
        quick: two rounds of two steps of a small network, not compiled: to try the benchmark, not for figures.
    """

    out: Path = Path("runs/performance")
    rounds: int = 7
    batch_size: int = 8
    steps: int = 4
    threads: int = 2
    compiled: bool = False
    quick: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks sampling_speed")
    prepare(options.threads)
    measure(options).write(options.out, arguments)


def measure(options: Options) -> Section:
    """Measure."""
    rounds, batch_size, steps = (2, 2, 2) if options.quick else (options.rounds, options.batch_size, options.steps)
    ours, whole = Ours(), Sizes(**QUICK) if options.quick else Sizes()
    flops = training_flops(ours, whole)
    x, label = whole.images(batch_size)
    x = torch.randn_like(x)
    calls: dict[str, Callable[[], Any]] = {}
    for name, library in LIBRARIES.items():
        sizes = matched(library, whole, flops)
        for kind in ["", ", compiled"] if options.compiled and not options.quick else [""]:
            network = library.network(sizes).eval()
            if kind:
                network.compile(dynamic=False)
            samples = {f"{name}{kind}": library.sample(network, sizes, steps, SCALE)}
            if name == ours.name:
                half = ours.sample(network, sizes, steps, SCALE, guided_share=0.5)
                samples[f"{name}{kind}, {HALF}"] = half
            if (
                name == ours.name or not kind
            ) and name not in ALWAYS_GUIDED:  # what is compiled anew for another batch size takes a minute
                samples[f"{name}{kind}, {PLAIN}"] = library.sample(network, sizes, steps, 1.0)
            calls |= {what: lambda sample=sample: sample(x, label) for what, sample in samples.items()}
    return section(interleaved(calls, rounds), steps, batch_size)


def section(seconds: Seconds, steps: int, batch_size: int) -> Section:
    """The figures as a section of the page."""
    guided = [name for name in seconds if HALF not in name and PLAIN not in name]
    own = [name for name in guided if name.split(",")[0] == Ours.name]
    halves = [name for name in seconds if HALF in name]
    best = fastest(seconds, [name for name in guided if name not in own])
    ours, half = fastest(seconds, own), fastest(seconds, halves)
    rows = [
        [
            name,
            f"{1000 * median(seconds, name) / steps:.1f}",
            f"{ratio(seconds, best, name):.2f}",
            spread(seconds, best, name),
        ]
        for name in seconds
    ]
    return Section(
        "sampling_speed",
        "Sampling",
        f"A step of DDIM with the U-Nets of the training, {batch_size} images, guidance scale {SCALE:g}: both halves "
        "in one batch, but for denoising-diffusion-pytorch, which calls its network twice. The guidance interval is a "
        "feature of this library alone, and its samples are others than those of full guidance; so it is compared with "
        "full guidance elsewhere.",
        [
            Claim(f"guided sampling step, times as fast as the fastest peer ({best})", ratio(seconds, best, ours), 1.6),
            Claim(f"the same, {HALF}", ratio(seconds, best, half), 2.1),
        ],
        [Table("A sampling step", ["", "ms", f"times {best}", "quartiles"], rows)],
        [
            Plot(
                "Milliseconds of a sampling step",
                "ms",
                "",
                {name: 1000 * median(seconds, name) / steps for name in seconds},
            )
        ],
    )
