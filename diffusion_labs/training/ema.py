"""The running average of a model's weights."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn


class EMA:
    """Exponential moving average of a model's parameters, with warm-up.

    After update n the decay is ``min(decay, (1 + n) / (10 + n))``, so that the first, noisy weights are
    soon forgotten. Only parameters that are trained are averaged. Frozen ones, such as an autoencoder's, are the
    model's own, not a copy; buffers, such as the tables of schedules, are copied.

    Args:
        model: the model; ``ema.model`` is the averaged copy, in eval mode.
        decay: of each update, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay ({decay}) must be in [0, 1)")
        frozen = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
        self.model = deepcopy(model, dict(frozen)).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights that ``model`` has now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        averages, parameters = zip(*((average, own) for average, own in pairs if average is not own), strict=True)
        torch._foreach_lerp_(averages, parameters, 1 - decay)
        for copy, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            copy.copy_(buffer)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
