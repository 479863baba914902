"""Everything that a run needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.training.base_objective import BaseObjective

Preview = Callable[[nn.Module, Path], Tensor]


@dataclass
class Experiment:
    """What a recipe returns: ordinary parts, ready to be trained.

    Attributes:
        objective: from a batch to the loss.
        model: the part of the objective that is kept: its weights are averaged and saved.
        batches: an endless iterator of dict batches with ``state_dict`` and ``load_state_dict``.
        optimizer: of the objective's parameters.
        steps: updates of the whole run.
        learning_rate: share of the optimizer's learning rate at an update.
        ema_decay: of the averaged weights.
        gradient_clip: largest norm of the gradient of each of the optimizer's groups of parameters.
        accumulate: batches per update.
        preview: draws a picture of what the averaged model can do to the given path, and returns it, uint8
            ``[h, w, 3]``. It must not use torch's global random numbers.
        description: plain data from which the model can be built again, written to the run's folder.
    """

    objective: BaseObjective
    model: nn.Module
    batches: Any
    optimizer: torch.optim.Optimizer
    steps: int
    learning_rate: Callable[[int], float] = field(default=lambda step: 1.0)
    ema_decay: float = 0.9999
    gradient_clip: float = 1.0
    accumulate: int = 1
    preview: Preview | None = None
    description: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay ({self.ema_decay}) must be in [0, 1)")
        for name in ("steps", "accumulate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be positive")


def batch_size(batch: Mapping[str, Any]) -> int:
    """The number of samples in a batch: the length of its first tensor."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))
