"""Learning rate over a run."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupCosine:
    """The share of the full learning rate at an update: a linear rise, then half a cosine down.

    For ``torch.optim.lr_scheduler.LambdaLR``.

    Args:
        steps: updates of the whole run.
        warmup: updates of the rise.
        final: share at the end.
    """

    steps: int
    warmup: int = 0
    final: float = 0.0

    def __call__(self, step: int) -> float:
        """The share at update ``step``, counted from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        progress = min(1.0, max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup)))
        return rise * (self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2)
