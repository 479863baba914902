"""What a sampling gains by keeping what does not change from step to step, and what more there would be to gain.

    python -m benchmarks keeping --out docs/keeping.md

Untrained networks, as the time does not depend on the weights. Time is that of the processor, a median of ratios over
interleaved rounds.
"""

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import tyro
from torch import Tensor, nn

import diffusion_labs as dl
from benchmarks.markdown import table
from benchmarks.speed.rounds import Seconds, interleaved, ratio, spread
from diffusion_labs.keeping import AT_ONCE

BATCHES = (1, 8)
OF_THE_TIME = ("time", "projection", "modulation")  # modules from the time, or from the embedding, in every network


class Case(NamedTuple):
    """A network, the shape of a sample, and those of its conditions.

    Attributes:
        make: builds the network.
        sample: shape of a sample.
        conditions: shapes of one sample's conditions by name; those of classes are empty.
    """

    make: Callable[[], nn.Module]
    sample: tuple[int, ...]
    conditions: dict[str, tuple[int, ...]]


CLASSES = {"class": 10}
TEXT = {"text": (77, 256)}
CASES = {
    "adm_unet": Case(
        lambda: dl.adm_unet(
            in_channels=3,
            model_channels=32,
            channel_mult=(1, 2, 3, 4),
            num_res_blocks=2,
            attention_levels=(1, 2, 3),
            classes=CLASSES,
        ),
        (3, 32, 32),
        {"class": ()},
    ),
    "ldm_unet": Case(
        lambda: dl.ldm_unet(
            in_channels=4,
            model_channels=64,
            channel_mult=(1, 2, 4),
            num_res_blocks=1,
            attention_levels=(0, 1, 2),
            num_heads=4,
            tokens={"text": 256},
        ),
        (4, 16, 16),
        TEXT,
    ),
    "dit": Case(
        lambda: dl.dit(in_channels=4, size=16, dim=192, depth=6, num_heads=3, classes=CLASSES),
        (4, 16, 16),
        {"class": ()},
    ),
    "pixart": Case(
        lambda: dl.pixart(in_channels=4, size=16, dim=192, depth=6, num_heads=3, tokens={"text": 256}),
        (4, 16, 16),
        TEXT,
    ),
    "mmdit": Case(
        lambda: dl.mmdit(
            in_channels=4,
            max_size=16,
            dim=192,
            depth=6,
            num_heads=3,
            tokens={"text": 256},
            vectors={"pooled_text": 256},
        ),
        (4, 16, 16),
        {**TEXT, "pooled_text": (256,)},
    ),
}


class FirstResult(nn.Module):
    """A module that gives what it gave first: what would be left if it cost nothing. Its results are wrong."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.results: dict[torch.Size, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, x: Tensor) -> Tensor:
        """The result of the first call with a tensor of this shape."""
        if x.shape not in self.results:
            self.results[x.shape] = self.module(x)
        return self.results[x.shape]


def without_time(network: nn.Module) -> nn.Module:
    """A copy in which the embedding of the time, and what every block makes of it, cost nothing."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name in OF_THE_TIME:
                setattr(module, name, FirstResult(child))
    return network


def forgetting() -> AbstractContextManager[Any]:
    """Samplers that keep nothing."""
    return patch("diffusion_labs.samplers.sampler.call_with", lambda memory, model, *arguments: model(*arguments))


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks keeping")


def measure(out: Path = Path("runs/keeping.md"), rounds: int = 9, steps: int = 10, threads: int = 1) -> None:
    """Measure, and write the page.

    Args:
        out: file of the page.
        rounds: of timing.
        steps: of DDIM in each.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    rows = []
    for name, case in CASES.items():
        for batch in BATCHES:
            seconds = interleaved(calls_of(case, batch, steps), rounds, clock=time.process_time)
            rows.append([name, str(batch), *figures(seconds)])
            print(rows[-1], flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(rows, steps))


def calls_of(case: Case, batch: int, steps: int) -> dict[str, Callable[[], Tensor]]:
    """Sampling that keeps nothing, as it is, and as if times cost nothing."""
    torch.manual_seed(0)
    network = case.make()
    x = torch.randn(batch, *case.sample)
    given = {
        name: torch.randn(batch, *shape) if shape else torch.arange(batch) % 10
        for name, shape in case.conditions.items()
    }

    def drawn(model: nn.Module, how: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Callable[[], Tensor]:
        schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000))
        guided = dl.CFGuidance(model, {tuple(given): 0.1}, guidance_scale=3.0)
        options = {"eval_steps": steps, "progress_bar": False}
        sampler = dl.DDIMSampler(guided, schedule, dl.NoisePredictor(schedule), **options).eval()

        def call() -> Tensor:
            with how():
                sample: Tensor = sampler(x, conditional_inputs=given)
            return sample

        return call

    return {
        "nothing": drawn(network, forgetting),
        "kept": drawn(network),
        "no time": drawn(without_time(network)),
    }


def figures(seconds: Seconds) -> list[str]:
    """The columns of a case."""
    return [
        f"{ratio(seconds, 'kept', 'nothing'):.3f}",
        spread(seconds, "kept", "nothing"),
        f"{ratio(seconds, 'no time', 'kept'):.3f}",
        spread(seconds, "no time", "kept"),
    ]


def page(rows: Sequence[Sequence[str]], steps: int) -> str:
    """The page."""
    names = ["network", "batch", "time with it", "quartiles", "if times cost nothing", "quartiles"]
    used = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"""# What a sampling keeps

What does not change from step to step is computed once, with no argument to give:

| kept | until |
| --- | --- |
| conditions of guidance: nulls, negatives, masks, the batch of all passes | a condition changes |
| projected tokens, the context of all conditions, its keys and values in every cross-attention | a condition changes |
| embeddings of the times with the conditions, and every block's projection of them | for {AT_ONCE} steps at once |

An adapter or a network offers it by calling a function through `kept(function, *arguments)`, or `stepped` for what
depends on the time (`diffusion_labs.keeping`): they give the last result again if they get the same tensors, unchanged,
in the calls of one sampling. A condition that an adapter makes anew in each step, or that is changed in place between
two of them, costs the computation, and is right. The memory is the sampling's own: it is gone after it, and samplings
at once, or one within another, do not share it. Samples are the same up to the order of sums.

Not kept: keys and values of texts that change from block to block, as in MM-DiT, U-ViT and the prior; embeddings of
classes, which are rows of a table; anything where gradients are recorded (`ClassifierGuidance`, `LinearPosterior`), in
graphs of `torch.compile` and `torch.export`, or of conditions made in `torch.inference_mode`, in which changes are not
counted. Weights must not change within a sampling.

Made by `python -m benchmarks keeping`: untrained networks, {steps} steps of DDIM with guidance, so that the network
gets twice the batch; {used}. Time is that of the processor, relative to sampling that keeps
nothing, with the quartiles over interleaved rounds; in the last columns, if times cost nothing at all, relative to
sampling as it is: what a table of all steps could gain at most.

{table(names, rows)}
"""
