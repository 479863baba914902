"""Images per second and memory of a training step, ADM U-Net at equal work, against other libraries.

    python -m benchmarks training_speed --out runs/performance

A step is the noise and the times of a batch, forward, loss, backward and AdamW, as a user of each library writes it.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks.speed.libraries import LEFT_OUT, LIBRARIES
from benchmarks.speed.machine import gemm, gemm_flops, prepare
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.rounds import Seconds, fastest, interleaved, median, ratio, spread
from benchmarks.speed.section import Claim, Plot, Section, Table
from benchmarks.speed.sizes import QUICK, Sizes, matched, parameters, trainer, training_flops

GEMM = "GEMM"
OURS = "diffusion_labs"
SHARES = {32: 0.60, 64: 0.85}  # bars, by width


@dataclass(frozen=True)
class Options:
    """Of the measurement.

    Attributes:
        out: folder for the figures.
        rounds: how many.
        batch_size: images a step.
        threads: of torch.
        compiled: measure each network compiled, too.
        quick: two rounds of a small network and batch, not compiled: to try the benchmark, not for figures.
    """

    out: Path = Path("runs/performance")
    rounds: int = 7
    batch_size: int = 16
    threads: int = 2
    compiled: bool = False
    quick: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks training_speed")
    prepare(options.threads)
    measure(options).write(options.out, arguments)


def measure(options: Options) -> Section:
    """Measure both widths."""
    rounds, batch_size = (2, 2) if options.quick else (options.rounds, options.batch_size)
    whole = Sizes(**QUICK) if options.quick else Sizes()
    goal = training_flops(LIBRARIES[OURS], whole)
    sizes = {name: matched(library, whole, goal) for name, library in LIBRARIES.items()}
    calls: dict[str, Callable[[], Any]] = {GEMM: gemm()}
    counts = {}
    for name, library in LIBRARIES.items():
        network = library.network(sizes[name])
        counts[name] = parameters(network)
        calls[name] = trainer(library, network, sizes[name], batch_size)
        if options.compiled and not options.quick:
            network = library.network(sizes[name])
            network.compile(dynamic=False)
            calls[f"{name}, compiled"] = trainer(library, network, sizes[name], batch_size)
    seconds = interleaved(calls, rounds)
    memory = {name: peak_memory(name, sizes[name], batch_size, options.threads) / 2**20 for name in LIBRARIES}
    wide = wide_share(replace(whole, width=64), rounds, batch_size)
    flops = {name: training_flops(library, sizes[name]) for name, library in LIBRARIES.items()}
    return section(seconds, memory, flops, counts, wide, batch_size)


def wide_share(sizes: Sizes, rounds: int, batch_size: int) -> float:
    """The share of the GEMM peak of ours alone."""
    library = LIBRARIES[OURS]
    calls = {GEMM: gemm(), OURS: trainer(library, library.network(sizes), sizes, batch_size)}
    return gemm_share(interleaved(calls, rounds), OURS, training_flops(library, sizes) * batch_size)


def gemm_share(seconds: Seconds, name: str, flops: float) -> float:
    """The FLOPs of a call per second as a share of the GEMM's of the same round: the median."""
    pairs = zip(seconds[GEMM], seconds[name], strict=True)
    return statistics.median(flops / own / (gemm_flops() / peak) for peak, own in pairs)


def section(
    seconds: Seconds,
    memory: dict[str, float],
    flops: dict[str, float],
    counts: dict[str, int],
    wide: float,
    batch_size: int,
) -> Section:
    """The figures as a section of the page."""
    names = [name for name in seconds if name != GEMM]
    own = [name for name in names if name.split(",")[0] == OURS]
    peers = [name for name in names if name not in own]
    ours, best = fastest(seconds, own), fastest(seconds, peers)
    least = min((name for name in memory if name != OURS), key=lambda name: memory[name])
    shares = {name: gemm_share(seconds, name, flops[name.split(",")[0]] * batch_size) for name in names}
    rows = [
        [
            name,
            f"{batch_size / median(seconds, name):.1f}",
            f"{ratio(seconds, best, name):.2f}",
            spread(seconds, best, name),
            f"{shares[name]:.0%}",
            f"{memory[name]:.0f}" if name in memory else "-",
        ]
        for name in names
    ]
    work = [[name, f"{counts[name] / 1e6:.3f}", f"{flops[name] / 1e9:.3f}"] for name in counts]
    return Section(
        "training_speed",
        "Training",
        f"ADM U-Net of width 32, widths 1 to 4 times that, two residual blocks a level, attention below the top level, "
        f"32 x 32, batch {batch_size}, dropout 0.1 (none in denoising-diffusion-pytorch, whose U-Net has none). A step "
        "is noise and times, forward, mean squared error, backward and fused AdamW. Peak memory is that of the tensors "
        "of a step in a process of its own. The GEMM peak is what torch's product of two large matrices reaches; on "
        "processors of AMD that is without AVX-512, so convolutions may be above it, as may products that Winograd's "
        f"algorithm saves. {LEFT_OUT}",
        [
            Claim(f"training step, times as fast as the fastest peer ({best})", ratio(seconds, best, ours), 1.3),
            Claim(
                f"training step, peak memory over that of the lowest peer ({least})",
                memory[OURS] / memory[least],
                1.0,
                at_most=True,
            ),
            Claim("share of the GEMM peak in a training step, width 32", shares[ours], SHARES[32]),
            Claim("share of the GEMM peak in a training step, width 64", wide, SHARES[64]),
        ],
        [
            Table(
                "A training step",
                ["", "images/s", f"times {best}", "quartiles", "of GEMM peak", "peak memory, MiB"],
                rows,
            ),
            Table("The work", ["", "parameters, M", "GFLOPs an image, forward and backward"], work),
        ],
        [
            Plot(
                "Images per second in training",
                "images/s",
                "",
                {name: batch_size / median(seconds, name) for name in names},
            )
        ],
    )
