"""How networks with attention are trained in the tests of tensor parallelism; also the script that trains them."""

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.data.batches import collate
from diffusion_labs.layers import EncoderBlock, FeedForward, SelfAttention
from diffusion_labs.training import BaseObjective, Experiment, TrainOptions, latest_checkpoint, load_checkpoint, train
from diffusion_labs.training.experiment import Preview
from tests.catalogue import NETWORKS, NUM_CLASSES, SCHEDULES, SIZE, network, prior_network, randomise

DIVIDED: dict[str, Callable[[], nn.Module]] = {
    "adm_unet": lambda: network(num_heads=2, tokens={"text": 6}, attention_order="new"),
    "adm_unet_legacy": lambda: network(num_heads=4, tokens={"text": 6}, attention_order="legacy", dropout=0.5),
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


class SmallCLIP(nn.Module):
    """One Transformer block for images and texts, and a scale without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(64, 8)
        self.text = nn.Embedding(NUM_CLASSES, 8)
        self.blocks = nn.ModuleList([EncoderBlock(8, SelfAttention(8, 2), FeedForward(8))])
        randomise(self)
        self.scale = nn.Parameter(torch.tensor(1.0))

    @property
    def logit_scale(self) -> Tensor:
        return getattr(self.scale, "to_local", lambda: self.scale)()

    def encode_image(self, x: Tensor) -> Tensor:
        return self.blocks[0](self.image(x.flatten(1))[:, None])[:, 0]

    def encode_text(self, ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(embedding=self.blocks[0](self.text(ids)[:, None])[:, 0])


def objective_of(name: str, data: Data, drop: float) -> tuple[BaseObjective, nn.Module, Preview | None]:
    """What a network is trained for, what is kept of it, and what is drawn with that."""
    if name == "clip":
        clip = SmallCLIP().double()
        return dl.ContrastiveObjective(clip, caption_field="class"), clip, None
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    trained = DIVIDED[name]().double()
    if drop == 0:  # nothing is drawn by modules
        for module in trained.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout"):  # of a norm with its activation
                module.dropout = 0.0
    names = sorted(data[0].keys() & trained.condition_names)
    dropped = tuple(key for key in names if key != "text_mask")
    guided = dl.CFGuidance(trained, {dropped: drop}, guidance_scale=2.0)
    sampler = dl.DDIMSampler(guided, schedule, predictor, eval_steps=2, progress_bar=False)
    transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))

    def draw(model: nn.Module, path: Path) -> Tensor:
        given = collate([data[i] for i in range(2)])
        path.parent.mkdir(exist_ok=True)
        with torch.no_grad():
            torch.save(model(given["x"], None, {key: given[key] for key in names}), path.with_suffix(".pt"))
        return torch.zeros(8, 8, 3, dtype=torch.uint8)

    return dl.Objective(transform, sampler, dl.SimpleLoss(), conditions=names), sampler, draw


def experiment(name: str, drop: float, steps: int) -> Experiment:
    """A run of a network in float64, as Adam makes much of small differences."""
    torch.set_default_dtype(torch.float64)
    prior = name == "prior_transformer"
    data = Data((6,) if prior else SIZE, 8 if prior else 6)
    objective, model, draw = objective_of(name, data, drop)
    torch.manual_seed(7)
    return Experiment(
        objective=objective,
        model=model,
        batches=dl.Batches(data, 4, seed=1),
        optimizer=torch.optim.AdamW(objective.parameters(), 1e-3),
        steps=steps,
        accumulate=2,
        ema_decay=0.5,
        gradient_clip=0.01,
        preview=draw,
    )


def found_in(folder: Path) -> dict[str, Any]:
    """The losses and norms of a run, its last checkpoint, and what was drawn last."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    state = load_checkpoint(latest_checkpoint(folder / "checkpoints"))
    return {
        **{name: [line[name] for line in lines] for name in ("step", "loss", "gradient_norm")},
        **{name: state[name] for name in ("ema", "power_averages", "objective", "optimizer", "batches")},
        "drawn": [torch.load(path) for path in sorted((folder / "samples").glob("*.pt"))[-1:]],
    }


Part = tuple[int, int, dict[str, Any]]
"""So many processes train until a step with these options."""

Run = tuple[str, float, list[Part]]
"""A network, how often its conditions are dropped, and who trains it, one number of processes after the other."""


def carry_out(folder: Path, runs: Mapping[str, Run]) -> None:
    """Train, each run in a folder of its name; by one command, as imports take longer than all else."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "tests.training.divided_runs", str(folder), json.dumps(runs)]
    subprocess.run(command, env=environment, check=True, timeout=3600)


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
                given = TrainOptions(resume=True, log_every=1, ema_snapshot_every=3, **options)
                train(experiment(name, drop, steps), folder, given)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert not any(statuses)


if __name__ == "__main__":
    import torch.distributed.fsdp

    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # imports, too
    for run, (name, drop, parts) in json.loads(sys.argv[2]).items():
        for part in parts:
            run_ranks(Path(sys.argv[1]) / run, name, drop, part)
