"""The time of making a batch, as a share of a training step.

    python -m benchmarks input_pipeline --data-dir DIR --out runs/performance

``DIR`` has the folders ``mnist``, of IDX files, and ``emoji64``, of tars.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.speed.machine import prepare
from benchmarks.speed.rounds import interleaved, median, ratio
from benchmarks.speed.section import Claim, Plot, Section, Table
from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.stages import Rehearsal
from diffusion_labs.training import Experiment
from diffusion_labs.training.device import autocast
from diffusion_labs.training.loop import backward, clip_gradients
from diffusion_labs.training.state import TrainState

# The name of a stage that reads images, its recipe, and the folder of its data
CASES = {
    "mnist": ("", "mnist"),
    "ldm-mnist": ("autoencoder", "mnist"),
    "ldm-emoji": ("autoencoder", "emoji64"),
}
BATCHES = 5  # in a timed call


@dataclass(frozen=True)
class Options:
    """Of the measurement.

    Attributes:
        data_dir: folder of the data sets.
        out: folder for the figures.
        rounds: how many.
        threads: of torch.
        quick: two rounds of small batches: to try the benchmark, not for figures.
    """

    data_dir: Path = Path("data")
    out: Path = Path("runs/performance")
    rounds: int = 7
    threads: int = 2
    quick: bool = False


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks input_pipeline")
    prepare(options.threads)
    measure(options).write(options.out, arguments)


def measure(options: Options) -> Section:
    """Measure the data sets that are there."""
    found = {}
    for name, (stage, folder) in CASES.items():
        if not (options.data_dir / folder).is_dir():
            print(f"{options.data_dir} has no {folder}: {name} is left out")
            continue
        fewer = {"batch_size": 4} if options.quick else {}
        stages = find_recipe(name)(data_dir=options.data_dir / folder, **fewer)
        rehearsal = Rehearsal()
        stages.until(stage).stages[0].rehearse(rehearsal)
        experiment = rehearsal.experiments[stage]
        calls = calls_of(experiment)
        seconds = interleaved(calls, 2 if options.quick else options.rounds)
        found[name] = (
            experiment.batches.batch_size,
            1000 * median(seconds, "batches") / BATCHES,
            1000 * median(seconds, "step"),
            ratio(seconds, "batches", "step") / BATCHES,
        )
    if not found:
        raise ValueError(f"--data-dir ({options.data_dir}) must hold {sorted({f for _, f in CASES.values()})}")
    return Section(
        "input_pipeline",
        "Input pipeline",
        "The time that `Batches` takes for a batch of the recipe's first stage, read, decoded and resized, and that of "
        "an update of that stage, as the training loop makes it.",
        [
            Claim(f"share of a batch in a step, {name}", share, 0.05, at_most=True)
            for name, (_, _, _, share) in found.items()
        ],
        [
            Table(
                "Batches",
                ["recipe", "batch size", "ms a batch", "ms a step", "share"],
                [[name, str(n), f"{b:.2f}", f"{s:.1f}", f"{share:.2%}"] for name, (n, b, s, share) in found.items()],
            )
        ],
        [Plot("Share of a batch in a step", "share", "", {name: row[3] for name, row in found.items()}, line=0.05)],
    )


def calls_of(experiment: Experiment) -> dict[str, Callable[[], Any]]:
    """Making some batches, and one update on one of them."""
    state, device = TrainState(experiment), torch.device("cpu")
    state.objective.train()
    batch = next(state.batches)

    def batches() -> None:
        for _ in range(BATCHES):
            next(state.batches)

    def step() -> None:
        backward(state.objective, [batch], device, autocast("fp32", device))
        clip_gradients(state.optimizer, experiment.gradient_clip)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.ema.update(state.model)

    return {"batches": batches, "step": step}
