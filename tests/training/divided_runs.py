"""Networks with attention, and how they are trained in the tests of tensor parallelism; also a script of its ranks."""

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.training import Experiment, TrainOptions, latest_checkpoint, load_checkpoint, train
from tests.catalogue import NETWORKS, NUM_CLASSES, SCHEDULES, SIZE, network, prior_network

DIVIDED: dict[str, Callable[[], nn.Module]] = {
    "adm_unet": lambda: network(num_heads=2, tokens={"text": 6}, attention_order="new"),
    "adm_unet_legacy": lambda: network(num_heads=4, tokens={"text": 6}, attention_order="legacy", dropout=0.3),
    **{name: NETWORKS[name] for name in ("ldm_unet", "dit", "pixart", "mmdit", "uvit")},
    "prior_transformer": prior_network,
}


class Data:
    """Samples of random numbers, with all conditions."""

    def __init__(self, size: tuple[int, ...], text_dim: int) -> None:
        self.size, self.text_dim = size, text_dim

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {
            "x": torch.randn(self.size, generator=generator),
            "class": index % NUM_CLASSES,
            "text": torch.randn(4, self.text_dim, generator=generator),
            "text_mask": torch.arange(4) <= index % 4,
            "text_embedding": torch.randn(5, generator=generator),
            "pooled_text": torch.randn(5, generator=generator),
            "resolution": 1 + 99 * torch.rand(2, generator=generator),
            "aspect_ratio": 0.5 + torch.rand(1, generator=generator),
        }


def experiment(name: str, drop: float, steps: int) -> Experiment:
    """A run of a network in float64, as Adam makes much of small differences."""
    torch.set_default_dtype(torch.float64)
    prior = name == "prior_transformer"
    data = Data((6,) if prior else SIZE, 8 if prior else 6)
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    trained = DIVIDED[name]().double()
    names = sorted(data[0].keys() & trained.condition_names)
    dropped = tuple(key for key in names if key != "text_mask")
    sampler = dl.DDIMSampler(dl.CFGuidance(trained, {dropped: drop}), schedule, predictor)
    transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
    objective = dl.Objective(transform, sampler, dl.SimpleLoss(), conditions=names)
    torch.manual_seed(7)
    return Experiment(
        objective=objective,
        model=sampler,
        batches=dl.Batches(data, 4, seed=1),
        optimizer=torch.optim.AdamW(objective.parameters(), 1e-3),
        steps=steps,
        accumulate=2,
        ema_decay=0.5,
        gradient_clip=0.01,
    )


def found_in(folder: Path) -> dict[str, Any]:
    """The losses and norms of a run, and its last checkpoint."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    state = load_checkpoint(latest_checkpoint(folder / "checkpoints"))
    return {
        **{name: [line[name] for line in lines] for name in ("step", "loss", "gradient_norm")},
        **{name: state[name] for name in ("ema", "power_averages", "objective", "optimizer", "batches")},
    }


Part = tuple[int, int, dict[str, Any]]
"""So many processes train until a step with these options."""

Run = tuple[str, float, list[Part]]
"""A network, how often its conditions are dropped, and who trains it, one number of processes after the other."""


def carry_out(folder: Path, runs: Mapping[str, Run]) -> None:
    """Train, each run in a folder of its name; by one command, as imports take longer than all else."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "tests.training.divided_runs", str(folder), json.dumps(runs)]
    subprocess.run(command, env=environment, check=True, timeout=1500)


def run_ranks(folder: Path, name: str, drop: float, part: Part) -> None:
    """Fork the processes, which spares each of them the imports."""
    count, steps, options = part
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ["RANK"] = str(rank)
            try:
                train(experiment(name, drop, steps), folder, TrainOptions(resume=True, log_every=1, **options))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert all([os.waitpid(child, 0)[1] == 0 for child in children])  # waits for all


if __name__ == "__main__":
    import torch.distributed.fsdp

    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # imports, too
    for run, (name, drop, parts) in json.loads(sys.argv[2]).items():
        for part in parts:
            run_ranks(Path(sys.argv[1]) / run, name, drop, part)
