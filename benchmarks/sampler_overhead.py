"""Microseconds that a sampler adds to each step, ours and other libraries': everything but the network, on one thread.

The network is free: it returns a tensor that it was made with. The set-up is what 2 steps cost, and a step is what 200
cost more, divided by 198; each is the median over interleaved repetitions: all samplers run in each of them. It is the
thread's CPU time, since other work on the machine stops a thread for longer than these steps last, and
``0.5 * x + 0.3 * y``, three kernels, is the ruler of how fast the core was.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import diffusion_labs as dl
from benchmarks.peers import k_diffusion_sampling

SHAPE = (1, 3, 8, 8)
FEW, MANY = 2, 200  # steps
RULER = "0.5 * x + 0.3 * y"

Run = Callable[[Tensor, int], Any]  # samples from noise in so many steps


class Overhead(NamedTuple):
    """What a sampler costs beside its network, microseconds."""

    step: float
    set_up: float


class FreeNetwork(nn.Module):
    """Returns one output, for every library's way of asking."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> Any:
        """The output."""
        return self.output


def ours() -> dict[str, Run]:
    """Our samplers, predicting the noise; DDIM also v, which costs two more kernels."""
    schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000))
    noise, velocity = dl.NoisePredictor(schedule), dl.VPredictor(schedule)
    network = FreeNetwork(dl.DiffusionOutput(torch.randn(SHAPE)))
    made = {
        "DDIM": dl.DDIMSampler(network, schedule, noise, progress_bar=False),
        "DDIM, v": dl.DDIMSampler(network, schedule, velocity, progress_bar=False),
        "DPM-Solver++ 2M": dl.DPMSolverPP2MSampler(network, schedule, noise, progress_bar=False),
        "DDPM": dl.DDPMSampler(network, schedule, noise, progress_bar=False),
        "Euler": dl.EulerSampler(network, schedule, noise, progress_bar=False),
        "Heun": dl.HeunSampler(network, schedule, noise, progress_bar=False),
        "UniPC 2": dl.UniPCSampler(network, schedule, noise, progress_bar=False),
    }

    def run(sampler: dl.Sampler, x: Tensor, steps: int) -> Any:
        sampler.eval_steps = steps
        return sampler(x)

    return {name: partial(run, sampler.eval()) for name, sampler in made.items()}


def diffusers() -> dict[str, Run]:
    """diffusers' schedulers with their usual loop."""
    import diffusers as library

    library.utils.logging.set_verbosity_error()
    classes = {
        "DDIM": library.DDIMScheduler,
        "DPM-Solver++ 2M": library.DPMSolverMultistepScheduler,
        "DDPM": library.DDPMScheduler,
        "Euler": library.EulerDiscreteScheduler,
        "Heun": library.HeunDiscreteScheduler,
        "UniPC 2": library.UniPCMultistepScheduler,
    }
    network = FreeNetwork(torch.randn(SHAPE))

    def run(scheduler: Any, x: Tensor, steps: int) -> Any:
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(output, t, x).prev_sample
        return x

    # Its list of times has two for each step of Heun
    return {name: partial(run, scheduler()) for name, scheduler in classes.items()}


def k_diffusion() -> dict[str, Run]:
    """k-diffusion's solvers; without noise, ancestral Euler for DDPM."""
    sampling = k_diffusion_sampling()
    functions = {
        "DPM-Solver++ 2M": sampling.sample_dpmpp_2m,
        "DDPM": sampling.sample_euler_ancestral,
        "Euler": sampling.sample_euler,
        "Heun": sampling.sample_heun,
    }
    network = FreeNetwork(torch.randn(SHAPE))

    def run(solve: Any, x: Tensor, steps: int) -> Any:
        sigmas = torch.cat([torch.linspace(80.0, 0.01, steps), torch.zeros(1)])
        return solve(network, x, sigmas, disable=True)

    return {name: partial(run, solve) for name, solve in functions.items()}


def azula() -> dict[str, Run]:
    """azula's samplers around a denoiser that is free but for its schedule."""
    from azula import sample
    from azula.denoise import DiracPosterior
    from azula.noise import VPSchedule

    network = FreeNetwork(DiracPosterior(torch.randn(SHAPE)))
    network.schedule = VPSchedule()
    classes = {"DDIM": sample.DDIMSampler, "DDPM": sample.DDPMSampler, "Euler": sample.EulerSampler}
    classes["Heun"] = sample.HeunSampler

    def run(sampler: Any, x: Tensor, steps: int) -> Any:
        return sampler(network, steps=steps, silent=True)(x)

    return {name: partial(run, sampler) for name, sampler in classes.items()}


LIBRARIES: dict[str, Callable[[], dict[str, Run]]] = {
    "diffusion_labs": ours,
    "diffusers": diffusers,
    "k-diffusion": k_diffusion,
    "azula": azula,
}


def ruler() -> Run:
    """As many bare updates as steps."""
    y = torch.randn(SHAPE)

    def run(x: Tensor, steps: int) -> None:
        for _ in range(steps):
            0.5 * x + 0.3 * y

    return run


@torch.no_grad()
def measure(runs: dict[Any, Run], repetitions: int) -> dict[Any, Overhead]:
    """Each run's overhead, all of them interleaved."""
    x, steps, set_ups = torch.randn(SHAPE), {key: [] for key in runs}, {key: [] for key in runs}
    for _ in range(repetitions):
        for key, run in runs.items():
            few, many = (seconds(run, x, count) for count in (FEW, MANY))
            step = (many - few) / (MANY - FEW)
            steps[key].append(1e6 * step)
            set_ups[key].append(1e6 * few)
    return {key: Overhead(statistics.median(steps[key]), statistics.median(set_ups[key])) for key in runs}


def seconds(run: Run, x: Tensor, count: int) -> float:
    """The CPU time of one run."""
    began = time.thread_time()
    run(x, count)
    return time.thread_time() - began


def page(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    ours, *others = figures["us per step"]
    versions = figures["versions"]
    names = list(figures["us per step"][ours])
    rows = [f"| {name} | {' | '.join(cell(figures, library, name) for library in (ours, *others))} |" for name in names]
    return "\n".join(
        [
            "# Overhead of a sampler, microseconds per step\n",
            "<!-- Made by `python -m benchmarks sampler_overhead --out docs`; do not edit. -->\n",
            *(__doc__ or "").splitlines()[2:],
            f"\n`{RULER}` took {figures['ruler']:.1f} us on {figures['machine']}. In brackets: the set-up of a call.\n",
            f"| | {' | '.join(f'{library} {versions[library]}' for library in (ours, *others))} |",
            "| --- " * (2 + len(others)) + "|",
            *rows,
            "",
        ]
    )


def cell(figures: dict[str, Any], library: str, name: str) -> str:
    """A step and, in brackets, the set-up."""
    step = figures["us per step"][library].get(name)
    return "" if step is None else f"{step:.0f} ({figures['us of set-up'][library][name]:.0f})"


def main(arguments: Sequence[str] = ()) -> None:
    """Print the figures as JSON; write them and the page into a folder if one is given."""
    parser = argparse.ArgumentParser(prog="sampler_overhead", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--libraries", nargs="*", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--out", type=Path, help="folder for sampler-overhead.md and .json")
    options = parser.parse_args(list(arguments))
    torch.set_num_threads(1)

    runs: dict[Any, Run] = {RULER: ruler()}
    for library in options.libraries:
        runs |= {(library, name): run for name, run in LIBRARIES[library]().items()}
    measure(runs, 1)  # warm
    measured = measure(runs, options.repetitions)

    table: dict[str, dict[str, dict[str, float]]] = {"us per step": {}, "us of set-up": {}}
    for library, name in (key for key in runs if key != RULER):
        table["us per step"].setdefault(library, {})[name] = round(measured[library, name].step, 1)
        table["us of set-up"].setdefault(library, {})[name] = round(measured[library, name].set_up, 1)
    figures = {
        "ruler": round(measured[RULER].step, 2),
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "versions": {library: version(library.replace("_", "-")) for library in options.libraries},
        **table,
    }
    print(json.dumps(figures, indent=2))
    if options.out is not None:
        (options.out / "sampler-overhead.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (options.out / "sampler-overhead.md").write_text(page(figures), encoding="utf-8")
