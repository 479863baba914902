"""A run small enough to be trained in a second."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.training import Experiment, WarmupCosine
from tests.catalogue import SCHEDULES, TinyNetwork


class Uninterrupted:
    """Makes the same experiment each time: 12 steps on 40 images, with dropout, guidance and accumulation."""

    def __call__(self, *, fused: bool = False, **changes: object) -> Experiment:
        torch.manual_seed(7)
        schedule = SCHEDULES["cosine"]()
        predictor = dl.VPredictor(schedule)
        network = nn.Sequential()  # holds nothing; keeps the random state apart from the model's
        network.eval()
        model = dl.CFGuidance(TinyNetwork(), {"class": 0.5})
        sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=2, progress_bar=False)
        generator = torch.Generator().manual_seed(3)
        data = [
            {"x": torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8, generator=generator), "class": i % 3}
            for i in range(40)
        ]
        transform = nn.Sequential(dl.NormalizeImages(), dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
        objective = dl.Objective(transform, sampler, dl.SimpleLoss(), conditions=["class"])
        settings = {
            "objective": objective,
            "model": sampler,
            "batches": dl.Batches(data, 8, seed=1),
            "optimizer": torch.optim.AdamW(objective.parameters(), 1e-2, fused=fused),
            "steps": 12,
            "learning_rate": WarmupCosine(12, warmup=3),
            "ema_decay": 0.9,
            "accumulate": 2,
        }
        return Experiment(**{**settings, **changes})


@pytest.fixture
def make_experiment() -> Callable[..., Experiment]:
    return Uninterrupted()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder
