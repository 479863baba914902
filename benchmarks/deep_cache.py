"""What the reuse of features costs in accuracy, and what it saves, beside simply making fewer steps.

    python -m benchmarks deep_cache runs/mnist --out docs/deep-cache.md

Accuracy is the distance to the sample that DDIM makes in 500 steps of the whole network from the same noise, root mean
square, in the network's own space, pixels or latents. Times are medians of ratios over interleaved rounds.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from torch import Tensor, nn

import diffusion_labs as dl
from benchmarks.markdown import table
from benchmarks.sampling_start import sampling_start
from benchmarks.speed.rounds import Seconds, interleaved, ratio, spread
from diffusion_labs.recipes.run import load_run, read_run

WHOLE = "all stages in every step"


class Choice(NamedTuple):
    """How to sample.

    Attributes:
        steps: of DDIM.
        interval: see ``DeepCache``; 1 reuses nothing.
        stages: see ``DeepCache``.
    """

    steps: int
    interval: int = 1
    stages: int = 1

    def describe(self) -> str:
        """As the page names it."""
        if self.interval == 1:
            return WHOLE
        plural = "s" if self.stages > 1 else ""
        return f"all stages in every step of {self.interval}, else the last {self.stages} stage{plural}"


STEPS = 50
CHOICES = (
    Choice(STEPS),
    Choice(STEPS, 2, 1),
    Choice(STEPS, 2, 3),
    Choice(STEPS, 3, 1),
    Choice(STEPS, 3, 3),
    Choice(STEPS, 5, 1),
    Choice(40),
    Choice(30),
    Choice(25),
    Choice(20),
)


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks deep_cache")


def measure(
    run: tyro.conf.Positional[Path],
    out: Path = Path("runs/deep_cache.md"),
    count: int = 16,
    rounds: int = 7,
    guidance_scale: float = 2.0,
    reference_steps: int = 500,
    threads: int = 1,
) -> None:
    """Measure, and write the page.

    Args:
        run: folder of a trained U-Net with classes.
        out: file of the page.
        count: samples.
        rounds: of timing.
        guidance_scale: of all samples.
        reference_steps: of the samples that the others are compared with.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    model, sizes = load_run(run)
    sampler: Any = sizes.sampler(model)
    guidance = sampler.model
    guidance.guidance_scale = guidance_scale
    around = guidance  # of the network, in which there may be adapters
    while not hasattr(around.model, "reusing"):
        around = around.model
    network = around.model
    x, conditions = sampling_start(model, sizes, count)

    def drawn(choice: Choice) -> Tensor:
        around.model = cached(network, choice)
        ddim = dl.DDIMSampler(
            guidance, sampler.schedule, sampler.predictor, eval_steps=choice.steps, grid=dl.trailing, progress_bar=False
        )
        sample: Tensor = ddim.eval()(x, conditional_inputs=conditions)
        return sample

    reference = drawn(Choice(reference_steps))
    errors = {choice: (drawn(choice) - reference).square().mean().sqrt().item() for choice in CHOICES}
    calls: dict[str, Callable[[], Tensor]] = {str(choice): lambda choice=choice: drawn(choice) for choice in CHOICES}
    text = page(
        errors, interleaved(calls, rounds), read_run(run)["recipe"], network, count, guidance_scale, reference_steps
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(text)


def cached(network: nn.Module, choice: Choice) -> nn.Module:
    """The network, reusing features as it was chosen."""
    if choice.interval == 1:
        return network
    return dl.DeepCache(network, interval=choice.interval, stages=choice.stages).eval()


def page(
    errors: dict[Choice, float],
    seconds: Seconds,
    recipe: str,
    network: nn.Module,
    count: int,
    scale: float,
    reference_steps: int,
) -> str:
    """The page."""
    whole = str(CHOICES[0])
    rows = [
        [
            choice.describe(),
            str(choice.steps),
            f"{ratio(seconds, str(choice), whole):.2f}",
            spread(seconds, str(choice), whole),
            f"{error:.4f}",
        ]
        for choice, error in errors.items()
    ]
    weights, used = sum(value.numel() for value in network.parameters()), torch.get_num_threads()
    return f"""# Reusing the features of a U-Net

Made by `python -m benchmarks deep_cache`, on a run of `{recipe}`: {weights / 1e6:.1f} million weights,
{len(network.decoder)} stages in the decoder; {count} samples by DDIM with guidance of {scale:g}; {used} of
{os.cpu_count()} cores. `DeepCache` calls all of the network in every n-th call, and the last stages alone between.
The error is the distance to the samples of {reference_steps} steps from the same noise, root mean square. Time
is that of {STEPS} steps with all stages = 1, with the quartiles over interleaved rounds.

{table(["", "steps", "time", "quartiles", "error"], rows)}

Read it by columns: what counts is whether fewer steps of the whole network, in the same time, come nearer. Solvers of
higher order need fewer steps for the same accuracy ([docs/solvers.md](solvers.md)), and leave less to reuse.
"""
