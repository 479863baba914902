"""Running averages of a model's weights."""

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from diffusion_labs.training.power_profile import gamma_of


class WeightAverage(ABC):
    """A running average of a model's parameters: ``average = decay * average + (1 - decay) * parameters``.

    Only parameters that are trained are averaged. Frozen ones, such as an autoencoder's, are the
    model's own, not a copy; buffers, such as the tables of schedules, are copied.

    Args:
        model: the model; ``average.model`` is the averaged copy, in eval mode.

    Attributes:
        trained: the names in the model's state of what is averaged.
    """

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters(remove_duplicate=False))
        frozen = {id(parameter): parameter for _, parameter in named if not parameter.requires_grad}
        self.trained = {name for name, parameter in named if parameter.requires_grad}
        self.model = deepcopy(model, dict(frozen)).eval().requires_grad_(False)
        self.updates = 0

    @abstractmethod
    def decay_of(self, update: int) -> float:
        """The decay of an update, counted from 1."""

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights that ``model`` has now."""
        self.updates += 1
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        averages, parameters = zip(*((average, own) for average, own in pairs if average is not own), strict=True)
        torch._foreach_lerp_(averages, parameters, 1 - self.decay_of(self.updates))
        for copy, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            copy.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


class EMA(WeightAverage):
    """Exponential moving average of a model's parameters, with warm-up.

    The decay of update n is ``min(decay, n / (9 + n))``, so that the first, noisy weights are soon forgotten.

    Args:
        model: see ``WeightAverage``; ``ema.model`` is the averaged copy.
        decay: of each update, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay ({decay}) must be in [0, 1)")
        super().__init__(model)
        self.decay = decay

    def decay_of(self, update: int) -> float:
        """See ``WeightAverage``."""
        return min(self.decay, update / (9 + update))


class PowerEMA(WeightAverage):
    """Average of a model's parameters by a power of the time (EDM2, https://arxiv.org/abs/2312.02696, section 3.1).

    The weights of time tau count in proportion to ``tau^gamma``: an average over a fixed share of the training, however
    long it is. The decay of update n is ``beta(n) = (1 - 1 / n)^(gamma + 1)`` (Eq. 127), so that the weights after
    update i count for ``(i^(gamma + 1) - (i - 1)^(gamma + 1)) / n^(gamma + 1)``, which is the integral of the profile
    from i - 1 to i. Those before the first update do not count.

    Args:
        model: see ``WeightAverage``.
        sigma_rel: the standard deviation of tau as a share of the training, in (0, 0.2887], see ``gamma_of``.
    """

    def __init__(self, model: nn.Module, sigma_rel: float) -> None:
        self.gamma = gamma_of(sigma_rel)
        super().__init__(model)
        self.sigma_rel = sigma_rel

    def decay_of(self, update: int) -> float:
        """See ``WeightAverage``."""
        return float((1 - 1 / update) ** (self.gamma + 1))

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state, the number of updates, and the width."""
        return {**super().state_dict(), "sigma_rel": self.sigma_rel}
