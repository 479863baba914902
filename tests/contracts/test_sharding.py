"""Every network, wrapped and trained as a user would, in shards of FSDP2 on two processes: as one process trains it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.catalogue import NETWORKS

TRAINED = sorted(NETWORKS.keys() - {"ideal"})  # which has no weights

TWO_AND_ONE = """
import os, sys, torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
import diffusion_labs as dl
from tests.catalogue import NETWORKS, NUM_CLASSES, SCHEDULES, SIZE

folder, names = sys.argv[1], sys.argv[2:]
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
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
    def __init__(self, name, sharded):
        schedule = SCHEDULES["cosine"]()
        predictor = dl.VPredictor(schedule)
        network = NETWORKS[name]().double().train()
        self.names = sorted(given.keys() & network.condition_names)
        self.sampler = dl.DDIMSampler(dl.CFGuidance(network, {tuple(self.names): 0.5}), schedule, predictor)
        transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
        self.objective = dl.Objective(transform, self.sampler, dl.SimpleLoss(), conditions=self.names)
        self.ema = dl.EMA(self.sampler, 0.5)
        if sharded:
            for model in (self.objective, self.ema.model):
                for blocks in [module for module in model.modules() if isinstance(module, nn.ModuleList)][::-1]:
                    for block in blocks:
                        fully_shard(block)
                fully_shard(model)
        self.optimizer = torch.optim.AdamW(self.objective.parameters(), 1e-3)

    def update(self, step, parts):
        for part in parts:
            torch.manual_seed(10 * step + part)  # of noise, times and dropped conditions
            rows = slice(2 * part, 2 * part + 2)
            loss = self.objective({"x": x[rows], **{name: given[name][rows] for name in self.names}})
            (loss / len(parts)).backward()
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), 0.01)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.sampler)
        return norm

    def result(self):
        state = {**self.objective.state_dict(), **{f"ema.{k}": v for k, v in self.ema.state_dict()["model"].items()}}
        return {key: whole(value) for key, value in state.items()}

def whole(value):
    return value.full_tensor() if hasattr(value, "full_tensor") else value

for name in names:
    run = Run(name, sharded=True)
    norms = [whole(run.update(step, [rank])).item() for step in range(3)]
    assert all(hasattr(value, "full_tensor") for value in run.objective.parameters())  # in parts
    alone = Run(name, sharded=False)
    expected = [alone.update(step, [0, 1]).item() for step in range(3)]
    found = run.result()  # a collective
    if rank == 0:
        torch.save({"found": [norms, found], "expected": [expected, alone.result()]}, f"{folder}/{name}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have put what they made of every network."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", TWO_AND_ONE, str(folder), *TRAINED]
    processes = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=1500) for process in processes] == [0, 0]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TRAINED)
def test_shards_train_as_one_process_does(folder: Path, name: str) -> None:
    """Three updates in an adapter, with clipped gradients and averaged weights; one process has both batches."""
    result = torch.load(folder / f"{name}.pt", weights_only=True)
    torch.testing.assert_close(result["found"], result["expected"], rtol=1e-5, atol=1e-6)
    assert min(result["found"][0]) > 0.01  # so that the gradients were clipped
