"""What several processes have measured together is what one would have."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from diffusion_labs.metrics import FeatureStatistics, gather_features, merge_statistics

SCRIPT = """
import sys, torch
import torch.distributed as dist
from diffusion_labs.metrics import FeatureStatistics, gather_features, merge_statistics
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
own = torch.load(f"{folder}/features.pt")[slice(0, 7) if rank == 0 else slice(7, None)]
merged = merge_statistics(FeatureStatistics.of(own))
torch.save((gather_features(own), merged.count, merged.mean, merged.covariance), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_features_and_statistics_of_two_processes_are_those_of_all(tmp_path: Path) -> None:
    features = 100 + torch.randn(20, 3, dtype=torch.float64)
    torch.save(features, tmp_path / "features.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in range(2):
        gathered, count, mean, covariance = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(gathered, features)
        assert count == 20
        torch.testing.assert_close(mean, features.mean(0))
        torch.testing.assert_close(covariance, features.T.cov())


def test_alone_they_are_as_they_were() -> None:
    features = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(gather_features(features), features)
    torch.testing.assert_close(merge_statistics(FeatureStatistics.of(features)).covariance, features.T.cov())
