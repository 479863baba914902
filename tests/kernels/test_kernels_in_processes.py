"""A network with the kernels, trained by two processes: as one process trains it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.comparison import error

WAYS = ("whole", "parts", "compiled")

TRAIN = """
import importlib, os, sys, torch
import torch.distributed as dist
from torch import nn
import diffusion_labs as dl
from diffusion_labs.kernels import build
from diffusion_labs.training.parallelism import Sharing, compile_blocks, shard, whole
from diffusion_labs.training.world import current_world

folder, rank = sys.argv[1], int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.manual_seed(0)
x, noise, label = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32), torch.arange(8) % 3
called = set()

def call(name, *arguments):
    called.add(name)
    build.call(name, *arguments)

for name in ("attention", "convolution", "normalisation", "pointwise", "resampling"):
    module = importlib.import_module(f"diffusion_labs.kernels.{name}")
    module.call, module.LEAST_SIZE = call, 1

def train(way):
    called.clear()
    torch.manual_seed(1)
    network = dl.adm_unet(
        in_channels=3, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_levels=[1],
        classes={"class": 3},
    ).train()
    for parameter in network.parameters():  # else what begins at zero has no gradients behind it
        nn.init.normal_(parameter, std=0.05)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    if way == "compiled":
        compile_blocks(network, backend="aot_eager")
    model = network
    if way == "whole":
        model = nn.parallel.DistributedDataParallel(network)
    elif way != "alone":
        shard(network, Sharing("fsdp", shards=2), current_world(), torch.device("cpu"))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    rows = slice(None) if way == "alone" else slice(4 * rank, 4 * rank + 4)
    for step in range(2):
        output = model(x[rows], torch.full((8,), 100 * step)[rows], {"class": label[rows]})
        (output.prediction - noise[rows]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    update = torch.cat([(whole(value) - before[key]).flatten() for key, value in network.state_dict().items()])
    return {"update": update, "called": sorted(called)}

results = {way: train(way) for way in WAYS}
if rank == 0:
    torch.save({"alone": train("alone"), **results}, f"{folder}/results.pt")
dist.destroy_process_group()
""".replace("WAYS", repr(WAYS))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two processes, and one alone, made of the same network."""
    folder: Path = tmp_path_factory.mktemp("kernels")
    environment = {**os.environ, "DIFFUSION_LABS_KERNELS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    processes = [
        subprocess.Popen([sys.executable, "-c", TRAIN, str(folder)], env={**environment, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    results: dict[str, dict[str, Any]] = torch.load(folder / "results.pt", weights_only=True)
    return results


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one_does(kernels_on: None, way: str, results: dict[str, dict[str, Any]]) -> None:
    """DDP, FSDP2, and FSDP2 with compiled blocks: the same kernels are called, and the weights change as much."""
    assert results[way]["called"] == results["alone"]["called"]
    assert {"group_norm_gradient", "winograd_weight_gradient", "pointwise"} <= set(results[way]["called"])
    assert error(results[way]["update"], results["alone"]["update"].double()) < 1e-4
