"""The kernels beside PyTorch's own operations: layers, training steps and guided sampling steps of the ADM U-Net.

python -m benchmarks kernels --threads 1 2 --widths 32 64
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import diffusion_labs as dl
from diffusion_labs.files import write_json
from diffusion_labs.kernels.build import SWITCH, library
from diffusion_labs.layers import Conv3x3, GroupNormSiLU, average_pool, conv, nearest_upsample
from diffusion_labs.training import Objective

BATCH = 16
LAYERS = {  # channels in and out, and side: those of a U-Net of width 32 or 64
    "convolution 32 to 32 at 32x32": lambda: layer(Conv3x3(32, 32), 32, 32),
    "convolution 96 to 32 at 32x32": lambda: layer(Conv3x3(96, 32), 96, 32),
    "convolution 64 to 64 at 32x32": lambda: layer(Conv3x3(64, 64), 64, 32),
    "convolution 64 to 64 at 16x16": lambda: layer(Conv3x3(64, 64), 64, 16),
    "convolution 128 to 128 at 16x16": lambda: layer(Conv3x3(128, 128), 128, 16),
    "convolution 192 to 96 at 8x8": lambda: layer(Conv3x3(192, 96), 192, 8),
    "convolution 256 to 128 at 4x4": lambda: layer(Conv3x3(256, 128), 256, 4),
    "product 64 to 192 at 16x16": lambda: layer(conv(2, 64, 192, 1), 64, 16),
    "product 128 to 384 at 4x4": lambda: layer(conv(2, 128, 384, 1), 128, 4),
    "mean of 2x2, 64 at 32x32": lambda: layer(average_pool(2), 64, 32),
    "double of 64 at 16x16": lambda: layer(nearest_upsample(), 64, 16),
    "norm, SiLU and dropout 32 at 32x32": lambda: layer(GroupNormSiLU(32, dropout=0.1), 32, 32),
    "norm, SiLU and dropout 64 at 16x16": lambda: layer(GroupNormSiLU(64, dropout=0.1), 64, 16),
}


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks kernels")


def measure(
    out: Path = Path("runs/kernels.json"),
    widths: tuple[int, ...] = (32, 64),
    threads: tuple[int, ...] = (1, 2),
    repeats: int = 7,
    layers: bool = True,
) -> None:
    """Measure, and write the figures as JSON and as a table in Markdown beside it.

    With one thread the time is that of the processor, which other processes disturb less; with more it is wall time.

    Args:
        out: file for the figures.
        widths: of the U-Nets.
        threads: numbers of threads.
        repeats: of each measurement; the median counts.
        layers: whether to measure single layers too.
    """
    if library() is None:
        raise SystemExit("the kernels are not available here: they need Linux, AVX2 and g++")
    rows: list[dict[str, Any]] = []
    for count in threads:
        torch.set_num_threads(count)
        cases = dict(LAYERS) if layers else {}
        for width in widths:
            cases[f"training step, width {width}"] = lambda width=width: training_step(width)
            cases[f"guided sampling step, width {width}"] = lambda width=width: sampling_step(width)
        for name, case in cases.items():
            rows.append({"threads": count, "name": name, **compare(case(), count, repeats)})
            print(json.dumps(rows[-1]), flush=True)
    write_json(out, {"rows": rows, "torch": torch.__version__})
    out.with_suffix(".md").write_text(table(rows))


def compare(run: Callable[[], object], threads: int, repeats: int) -> dict[str, float]:
    """Milliseconds without and with the kernels, and the share of the peak that a matrix product reaches, in turn."""
    clock = time.process_time if threads == 1 else time.perf_counter
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    actions: dict[str, Callable[[], object]] = {"off": run, "on": run, "product": lambda: left @ right}
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats + 1):
        for name, action in actions.items():
            os.environ[SWITCH] = "0" if name == "off" else "1"
            began = clock()
            action()
            seconds[name].append(clock() - began)
    off, on, product = (statistics.median(values[1:]) for values in seconds.values())  # the first warms up
    os.environ[SWITCH] = "0"
    with FlopCounterMode(display=False) as counter:
        run()
    peak = 2 * 1024**3 / product
    return {
        "off_ms": round(1000 * off, 3),
        "on_ms": round(1000 * on, 3),
        "ratio": round(off / on, 2),
        "peak_gflops": round(peak / 1e9, 1),
        "share_off": round(counter.get_total_flops() / off / peak, 3),
        "share_on": round(counter.get_total_flops() / on / peak, 3),
    }


def layer(module: nn.Module, channels: int, side: int) -> Callable[[], object]:
    """Forward and backward pass of a layer."""
    x = torch.randn(BATCH, channels, side, side, requires_grad=True)
    values = [x, *module.parameters()]
    gradient = torch.randn_like(module(x))
    return lambda: torch.autograd.grad(module(x), values, gradient)


def unet(width: int) -> nn.Module:
    """The network of the issue on speed, whose blocks do not start as the identity."""
    network = dl.adm_unet(
        in_channels=3,
        model_channels=width,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=2,
        attention_levels=(1, 2, 3),
        head_channels=32,
        learned_variance=True,
        dropout=0.1,
        classes={"class": 10},
    )
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


def training_step(width: int) -> Callable[[], object]:
    """Hybrid loss, backward pass and AdamW."""
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    predictor = dl.NoisePredictor(schedule)
    network = unet(width).train()
    sampler = dl.DDPMSampler(network, schedule, predictor)
    transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
    objective = Objective(
        transform, sampler, dl.DiffusionHybridLoss(dl.SimpleLoss(), dl.VLBLoss(schedule)), conditions=["class"]
    ).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5, fused=True)
    batch = {"x": torch.randn(BATCH, 3, 32, 32), "class": torch.arange(BATCH) % 10}

    def run() -> None:
        objective(batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def sampling_step(width: int) -> Callable[[], object]:
    """One call of the network with classifier-free guidance: both halves in one batch."""
    model = dl.CFGuidance(unet(width), {"class": 0.1}, guidance_scale=3.0).eval()
    x, t, classes = torch.randn(BATCH, 3, 32, 32), torch.full((BATCH,), 500), torch.arange(BATCH) % 10

    def run() -> object:
        with torch.no_grad():
            return model(x, t, {"class": classes})

    return run


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        "| threads | | off, ms | on, ms | times as fast | share of GEMM peak, off | on |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = f"{row['share_off']:.0%} | {row['share_on']:.0%}" if row["share_off"] else "|"
        figures = f"{row['off_ms']} | {row['on_ms']} | {row['ratio']}"
        lines.append(f"| {row['threads']} | {row['name']} | {figures} | {shares} |")
    return "\n".join(lines) + "\n"
