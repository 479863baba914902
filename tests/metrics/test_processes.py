"""What several processes have measured together is what one would have."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from diffusion_labs.metrics import FeatureStatistics, gather_features, merge_statistics
from diffusion_labs.metrics.processes import in_parts

SCRIPT = """
import sys, torch
import torch.distributed as dist
from diffusion_labs.metrics import FeatureStatistics, gather_features, merge_statistics
from diffusion_labs.metrics.processes import FeaturesInParts, in_parts
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
own = torch.load(f"{folder}/features.pt")[slice(0, 7) if rank == 0 else slice(7, None)]
merged = merge_statistics(FeatureStatistics.of(own))
torch.save((gather_features(own), merged.count, merged.mean, merged.covariance), f"{folder}/{rank}.pt")

class Squares:
    name, seen = "squares", 0

    def features(self, images):
        self.seen += len(images)
        return images.square()

    def log_probabilities(self, images):
        return None

squares, images = Squares(), torch.arange(5.0)[:, None]
parts = FeaturesInParts(squares)
made = [in_parts(n, lambda first, stop: (rank, first, stop)) for n in (5, 2, 1)]
torch.save((made, parts.features(images), parts.log_probabilities(images), squares.seen), f"{folder}/parts-{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_have_each_a_part_and_together_what_one_has(tmp_path: Path) -> None:
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
        made, squares, none, seen = torch.load(tmp_path / f"parts-{rank}.pt")
        assert made == [[(0, 0, 3), (1, 3, 5)], [(0, 0, 1), (1, 1, 2)], [(0, 0, 1)]]
        assert torch.equal(squares, torch.tensor([0.0, 1, 4, 9, 16])[:, None])
        assert none is None
        assert seen == (3, 2)[rank]


def test_alone_they_are_as_they_were() -> None:
    features = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(gather_features(features), features)
    torch.testing.assert_close(merge_statistics(FeatureStatistics.of(features)).covariance, features.T.cov())
    assert in_parts(3, lambda first, stop: (first, stop)) == [(0, 3)]
