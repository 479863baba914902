"""Every network, wrapped and trained as a user would by two processes, in each way: as one process trains it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.catalogue import NETWORKS

TRAINED = sorted(NETWORKS.keys() - {"ideal"})  # which has no weights
WAYS = ("whole", "parts", "recomputed", "compiled")

TWO_AND_ONE = """
import os, sys, torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
import diffusion_labs as dl
from diffusion_labs.checkpointing import keep_products, set_checkpointing
from diffusion_labs.training.parallelism import Sharing, compile_blocks, shard, whole
from diffusion_labs.training.world import current_world
from tests.catalogue import NETWORKS, NUM_CLASSES, SCHEDULES, SIZE

folder, names = sys.argv[1], sys.argv[2:]
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
device, world = torch.device("cpu"), current_world()
generator = torch.Generator().manual_seed(0)
torch.set_default_dtype(torch.float64)  # Adam makes much of small differences
x = torch.randn(4, *SIZE, generator=generator)
given = {
    "class": torch.randint(0, NUM_CLASSES, (4,), generator=generator),
    "text": torch.randn(4, 4, 6, generator=generator),
    "pooled_text": torch.randn(4, 5, generator=generator),
    "resolution": 1 + 99 * torch.rand(4, 2, generator=generator),
    "aspect_ratio": 0.5 + torch.rand(4, 1, generator=generator),
}

class Run:
    def __init__(self, name, way):
        schedule = SCHEDULES["cosine"]()
        predictor = dl.VPredictor(schedule)
        network = NETWORKS[name]().double().train()
        self.names = sorted(given.keys() & network.condition_names)
        self.sampler = dl.DDIMSampler(dl.CFGuidance(network, {tuple(self.names): 0.5}), schedule, predictor)
        transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
        self.objective = dl.Objective(transform, self.sampler, dl.SimpleLoss(), conditions=self.names)
        self.ema = dl.EMA(self.sampler, 0.5)
        self.called = self.objective
        if way == "recomputed" and any(hasattr(module, "checkpointing") for module in network.modules()):
            set_checkpointing(network, keep_products)
        if way == "compiled":
            compile_blocks(network, backend="aot_eager")
        if way == "whole":
            self.called = nn.parallel.DistributedDataParallel(self.objective)
        elif way != "alone":
            sharing = Sharing("fsdp", shards=1 if way == "compiled" else 2, reshard=way != "recomputed")
            shard(self.objective, sharing, world, device)
            shard(self.ema.model, sharing, world, device)
            assert all(hasattr(value, "full_tensor") for value in self.objective.parameters())  # in parts
        self.optimizer = torch.optim.AdamW(self.objective.parameters(), 1e-3)

    def update(self, step, parts):
        for part in parts:
            torch.manual_seed(10 * step + part)  # of noise, times and dropped conditions
            rows = slice(2 * part, 2 * part + 2)
            loss = self.called({"x": x[rows], **{name: given[name][rows] for name in self.names}})
            (loss / len(parts)).backward()
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), 0.01)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.sampler)
        return norm

    def result(self):
        state = {**self.objective.state_dict(), **{f"ema.{k}": v for k, v in self.ema.state_dict()["model"].items()}}
        return {key: whole(value) for key, value in state.items()}

def read(run, path):
    state = run.objective.state_dict()
    dcp.load(state, checkpoint_id=path)
    run.objective.load_state_dict(state)
    return {key: whole(value) for key, value in run.objective.state_dict().items()}

for name in names:
    alone = Run(name, "alone")
    expected = [alone.update(step, [0, 1]).item() for step in range(3)], alone.result()
    for way in WAYS:
        run = Run(name, way)
        norms = [whole(run.update(step, [rank])).item() for step in range(3)]
        found = norms, run.result()  # a collective
        if rank == 0:
            torch.save({"found": found, "expected": expected}, f"{folder}/{name}-{way}.pt")
        if way == "parts":
            path = f"{folder}/{name}-dcp"
            dcp.save(run.objective.state_dict(), checkpoint_id=path)
            states = {"saved": {key: whole(value) for key, value in run.objective.state_dict().items()}}
            states |= {other: read(Run(name, other), path) for other in ("parts", "alone")}
            if rank == 0:
                torch.save(states, f"{folder}/{name}-dcp.pt")
dist.destroy_process_group()
""".replace("WAYS", repr(WAYS))


HALF = """
import os, sys, torch
import torch.distributed as dist
from diffusion_labs.training.device import autocast
from diffusion_labs.training.parallelism import Sharing, shard, whole
from diffusion_labs.training.world import current_world
from tests.catalogue import NETWORKS, NUM_CLASSES, SIZE

folder, names = sys.argv[1], sys.argv[2:]
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{folder}/store-half", rank=rank, world_size=2)
device, world = torch.device("cpu"), current_world()
generator = torch.Generator().manual_seed(0)
x = torch.randn(2, *SIZE, generator=generator)
given = {"class": torch.arange(2) % NUM_CLASSES, "text": torch.randn(2, 4, 6, generator=generator)}

def gradients(name, precision, sharded):
    network = NETWORKS[name]().train()
    if sharded:
        shard(network, Sharing("fsdp", 2, bfloat16=True), world, device)
    torch.manual_seed(1)  # of dropout
    with autocast(precision, device):
        inputs = {key: given[key] for key in given.keys() & network.condition_names}
        loss = network(x, torch.tensor([3, 900]), inputs).prediction.square().mean()
    loss.backward()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    return torch.cat([whole(parameter.grad).flatten() for parameter in network.parameters() if parameter.requires_grad])

for name in names:
    found = {
        "exact": gradients(name, "fp32", False),
        "alone": gradients(name, "bf16", False),
        "parts": gradients(name, "bf16", True),
    }
    if rank == 0:
        torch.save(found, f"{folder}/{name}-half.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have put what they made of every network."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    for script in (TWO_AND_ONE, HALF):
        command = [sys.executable, "-c", script, str(folder), *TRAINED]
        processes = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
        assert [process.wait(timeout=1500) for process in processes] == [0, 0]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_train_as_one_does(folder: Path, name: str, way: str) -> None:
    """Three updates in an adapter, with clipped gradients and averaged weights; one process has both batches.

    Each has the whole (DDP), or half of it (FSDP2); with recomputed blocks, whose weights stay gathered; with compiled
    blocks, in groups of one (hybrid sharding).
    """
    result = torch.load(folder / f"{name}-{way}.pt", weights_only=True)
    torch.testing.assert_close(result["found"], result["expected"], rtol=1e-5, atol=1e-6)
    assert min(result["found"][0]) > 0.01  # so that the gradients were clipped


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TRAINED)
def test_a_state_in_parts_goes_through_a_distributed_checkpoint(folder: Path, name: str) -> None:
    """PyTorch's own format, which each process writes its part of: read in parts, and whole, to the bit."""
    states = torch.load(folder / f"{name}-dcp.pt", weights_only=True)
    for way in ("parts", "alone"):
        torch.testing.assert_close(states[way], states["saved"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TRAINED)
def test_weights_gathered_in_bfloat16_are_as_exact_as_autocast(folder: Path, name: str) -> None:
    result = torch.load(folder / f"{name}-half.pt", weights_only=True)
    alone, parts = ((result[way] - result["exact"]).norm() / result["exact"].norm() for way in ("alone", "parts"))
    assert 1e-4 < parts < 1.5 * alone
