"""The memory of real updates on the CPU, beside that which a plan tells: the table of docs/scaling.md.

python -m benchmarks plan_memory

Without the kernels, which keep less for the backward pass: a plan is of PyTorch's own operations, which run on GPUs.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn

import diffusion_labs as dl
from benchmarks.gates import check
from benchmarks.markdown import table
from diffusion_labs.kernels.build import SWITCH
from diffusion_labs.training import Experiment, KLObjective, Objective, plan_update
from diffusion_labs.training.device import autocast
from diffusion_labs.training.loop import backward, clip_gradients
from diffusion_labs.training.state import TrainState

GATE = (0.9, 1.1)
GIVEN_BACK = {  # to the system as soon as a tensor is freed; glibc would keep it for the next
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks plan_memory")


def measure(out: Path = Path("runs/plan_memory.json"), only: str | None = None) -> None:
    """Compare each network's plan with the largest resident memory of a process that makes three updates.

    Args:
        out: file for the report.
        only: a network.
    """
    report: dict[str, float] = {}
    gates, rows = {}, []
    for name in CASES if only is None else [only]:
        plan, most = planned(name) / 2**20, measured(name) / 2**20
        rows.append([TITLES[name], f"{plan:.0f}", f"{most:.0f}", f"{plan / most:.3f}"])
        report |= {f"{name}_planned_mib": plan, f"{name}_measured_mib": most, f"{name}_ratio": plan / most}
        gates[f"{name}_ratio"] = GATE
    print(table(["network", "planned, MiB", "measured, MiB", "ratio"], rows))
    check(report, gates, out)


def planned(name: str) -> int:
    """The bytes of an update by the plan."""
    return plan_update(*CASES[name](1), device="cpu").memory


def measured(name: str) -> int:
    """The bytes by which the resident memory of a process grows at the most in three updates."""
    environment = {**os.environ, **GIVEN_BACK, SWITCH: "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.plan_memory", name]
    return int(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def update_for_real(experiment: Experiment, batch: dict[str, Any], count: int) -> None:
    """Some updates, as the loop makes them."""
    state, device = TrainState(experiment), torch.device("cpu")
    for _ in range(count):
        backward(state.objective.train(), [batch], device, autocast("fp32", device))
        clip_gradients(state.optimizer, experiment.gradient_clip)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.ema.update(state.model)


def dit(scale: float) -> tuple[Experiment, dict[str, Any]]:
    """A Transformer."""
    width = 64 * max(1, round(6 * scale))
    network = dl.dit(
        in_channels=4, size=(32, 32), patch_size=2, dim=width, depth=4, num_heads=width // 64, classes={"class": 10}
    )
    return diffusion(network, (4, 32, 32), count=max(1, round(8 * scale)))


def adm_unet(scale: float) -> tuple[Experiment, dict[str, Any]]:
    """A U-Net."""
    network = dl.adm_unet(
        in_channels=3,
        model_channels=32 * max(1, round(2 * scale)),
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
        head_channels=32,
        classes={"class": 10},
    )
    return diffusion(network, (3, 32, 32), count=max(1, round(16 * scale)))


def autoencoder(scale: float) -> tuple[Experiment, dict[str, Any]]:
    """An autoencoder, with a discriminator."""
    model = dl.autoencoder_kl(
        in_channels=3, channels=(32, 64, 64), latent_channels=4, num_res_blocks=1, num_groups=8, middle_attention=False
    )
    discriminator = dl.PatchDiscriminator(3, channels=32, num_layers=2)
    objective = KLObjective(model, discriminator=discriminator, disc_start=1)
    optimizer = torch.optim.Adam(objective.parameter_groups(1e-4), fused=True)
    experiment = Experiment(objective=objective, model=model, batches=None, optimizer=optimizer, steps=1)
    return experiment, {"x": torch.randn(max(1, round(6 * scale)), 3, 64, 64)}


def diffusion(network: nn.Module, shape: tuple[int, ...], count: int) -> tuple[Experiment, dict[str, Any]]:
    """The training of a network on v prediction, and a batch."""
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    predictor = dl.VPredictor(schedule)
    sampler = dl.DDIMSampler(dl.CFGuidance(network, {"class": 0.1}), schedule, predictor)
    transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
    objective = Objective(transform, sampler, dl.SimpleLoss(), conditions=["class"])
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-4, fused=True)
    experiment = Experiment(objective=objective, model=sampler, batches=None, optimizer=optimizer, steps=1)
    return experiment, {"x": torch.randn(count, *shape), "class": torch.arange(count) % 10}


CASES: dict[str, Callable[[float], tuple[Experiment, dict[str, Any]]]] = {
    "dit": dit,
    "adm_unet": adm_unet,
    "autoencoder": autoencoder,
}
TITLES = {
    "dit": "`dit`, 384 wide, 4 blocks, 8 latents of 32 x 32",
    "adm_unet": "`adm_unet`, 64 channels, 16 images of 32 x 32",
    "autoencoder": "`autoencoder_kl` with its discriminator, 6 images of 64 x 64",
}


def forget_most_resident() -> None:
    """Begin anew to look for the most, of which ``getrusage`` has that of the process that started this one, too."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(most: bool = False) -> int:
    """The resident memory of this process, in bytes, now or at the most."""
    name = "VmHWM:" if most else "VmRSS:"
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":  # the process that is measured
    case = CASES[sys.argv[1]]
    update_for_real(*case(0.1), count=2)  # loads code
    before = resident()
    forget_most_resident()
    update_for_real(*case(1), count=3)
    print(resident(most=True) - before)
