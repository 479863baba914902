"""Learning rate over a run."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR


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


def follow_schedule(scheduler: LambdaLR) -> None:
    """Give an optimiser that was restored the learning rates of its schedule, which are others in a run made longer."""
    groups = scheduler.optimizer.param_groups
    for group, rate, share in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        now = rate * share(scheduler.last_epoch)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(now)
        else:
            group["lr"] = now
