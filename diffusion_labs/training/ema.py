"""Running averages of a model's weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from diffusion_labs.training.parts import load_whole
from diffusion_labs.training.power_profile import gamma_of


class WeightAverage(ABC):
    """A running average of a model's parameters: ``average = decay * average + (1 - decay) * parameters``.

    Only parameters that are trained are averaged. Frozen ones, such as an autoencoder's, are the
    model's own, not a copy; buffers, such as the tables of schedules, are copied.

    Averages are float32 or better, as their small steps would be lost in bfloat16 and float16. A state dict that has
    them fits the model, which casts it to its own data types.

    Args:
        model: the model; ``average.model`` is the averaged copy, in eval mode.
        allocated: whether to begin now; else ``allocate`` does, with a model that may then be in parts.

    Attributes:
        trained: the names in the model's state of what is averaged.
    """

    def __init__(self, model: nn.Module, *, allocated: bool = True) -> None:
        named = list(model.named_parameters(remove_duplicate=False))
        copies = {
            id(value): nn.Parameter(torch.empty_like(value, dtype=_precise(value.dtype), device="meta"))
            if value.requires_grad
            else value
            for _, value in named
        }
        self.trained = {name for name, parameter in named if parameter.requires_grad}
        self.model = deepcopy(model, dict(copies)).eval().requires_grad_(False)
        self.updates = 0
        if allocated:
            self.allocate(model)

    @torch.no_grad()
    def allocate(self, model: nn.Module) -> None:
        """Begin with the weights that ``model`` has now."""
        made: dict[int, nn.Parameter] = {}
        for copy, module in zip(self.model.modules(), model.modules(), strict=True):
            for name, own in module.named_parameters(recurse=False, remove_duplicate=False):
                if getattr(copy, name).is_meta:
                    if id(own) not in made:
                        value = own.detach().clone().to(_precise(own.dtype))
                        made[id(own)] = nn.Parameter(value, requires_grad=False)
                    setattr(copy, name, made[id(own)])

    @contextmanager
    def as_trained(self, model: nn.Module) -> Iterator[nn.Module]:
        """The averaged model with weights in the data types of ``model``'s own, to call it.

        Those in parts stay as they are: they are cast when they are gathered.
        """
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        averages = [
            (average, average.data, own.dtype)
            for average, own in pairs
            if average.dtype != own.dtype and not hasattr(average, "full_tensor")
        ]
        for average, value, dtype in averages:
            average.data = value.to(dtype)
        try:
            yield self.model
        finally:
            for average, value, _ in averages:
                average.data = value

    @abstractmethod
    def decay_of(self, update: int) -> float:
        """The decay of an update, counted from 1."""

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights that ``model`` has now."""
        self.updates += 1
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        both = [(average, own.to(average.dtype)) for average, own in pairs if average is not own]
        averages, parameters = zip(*both, strict=True)
        torch._foreach_lerp_(averages, parameters, 1 - self.decay_of(self.updates))
        for copy, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            copy.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        load_whole(self.model, state["model"])
        self.updates = state["updates"]


class EMA(WeightAverage):
    """Exponential moving average of a model's parameters, with warm-up.

    The decay of update n is ``min(decay, n / (9 + n))``, so that the first, noisy weights are soon forgotten.

    Args:
        model: see ``WeightAverage``; ``ema.model`` is the averaged copy.
        decay: of each update, in [0, 1).
        allocated: see ``WeightAverage``.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, *, allocated: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay ({decay}) must be in [0, 1)")
        super().__init__(model, allocated=allocated)
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
        allocated: see ``WeightAverage``.
    """

    def __init__(self, model: nn.Module, sigma_rel: float, *, allocated: bool = True) -> None:
        self.gamma = gamma_of(sigma_rel)
        super().__init__(model, allocated=allocated)
        self.sigma_rel = sigma_rel

    def decay_of(self, update: int) -> float:
        """See ``WeightAverage``."""
        return float((1 - 1 / update) ** (self.gamma + 1))

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state, the number of updates, and the width."""
        return {**super().state_dict(), "sigma_rel": self.sigma_rel}


def _precise(dtype: torch.dtype) -> torch.dtype:
    """The data type of averages of weights of another."""
    return torch.promote_types(dtype, torch.float32)
