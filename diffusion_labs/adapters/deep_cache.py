"""Features of a U-Net that change little between the steps of sampling."""

import copy
from typing import Any

from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput


class DeepCache(Adapter):
    """Calls all of a U-Net in every n-th call of a sampling, and its outermost stages alone between (arXiv 2312.00858).

    What the last stages of the decoder get from the deeper ones changes slowly from step to step. It is kept, and the
    stages that made it are left out of the next ``interval - 1`` calls: samples come sooner, and are not the same. How
    much sooner, and how far from them, is measured by ``python -m benchmarks deep_cache``. Samplers of several calls a
    step make use of it, too. In train mode, and outside of a sampler's loop, the network is called as it is.

    It is put directly around the network, inside of guidance. Each loop has features of its own, so that several may
    run at once; it is no one graph of ``torch.compile``, as it remembers them.

    Args:
        model: an ``adm_unet`` or ``ldm_unet``, or another network with their method ``reusing``.
        interval: n, from 1, which reuses nothing, on.
        stages: of the decoder, from its end, that are called in every call, at least 1: with more of them samples are
            nearer to those of the whole network, and take longer.

    Raises:
        ValueError: if the network cannot reuse features, or the numbers are out of range.

    Example:
        >>> model = CFGuidance(DeepCache(network, interval=3), {"class": 0.1}, guidance_scale=2.0)
    """

    def __init__(self, model: nn.Module, *, interval: int = 3, stages: int = 1) -> None:
        super().__init__(model)
        if not hasattr(model, "reusing"):
            raise ValueError(
                f"{type(model).__name__} cannot reuse features; put DeepCache directly around a network that can, as "
                "adm_unet and ldm_unet make"
            )
        decoder: Any = model.decoder
        if interval < 1 or not 1 <= stages <= len(decoder):
            raise ValueError(
                f"interval ({interval}) must be at least 1, and stages ({stages}) from 1 to the {len(decoder)} of the "
                "network's decoder"
            )
        self.interval = interval
        self.stages = stages

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule`` and the class."""
        output: DiffusionOutput = self.model(x, timestep, conditional_inputs)
        return output

    def for_sampling(self) -> nn.Module:
        """One that remembers features, from now on."""
        if self.training or self.interval == 1:
            return self
        remembering = copy.copy(self)
        remembering.__class__ = _Remembering
        vars(remembering).update(calls=0, features=None)
        return remembering


class _Remembering(DeepCache):
    """``DeepCache`` in the loop of a sampler.

    Attributes:
        calls: since the features were made.
        features: of the last call of the whole network.
    """

    calls: int
    features: Tensor | None

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``DeepCache``."""
        network: Any = self.model
        if self.features is not None and (self.calls == self.interval or len(self.features) != len(x)):
            self.features = None  # also where guidance begins or ends, and the batch is another
        if self.features is None:
            self.calls = 0
        output, self.features = network.reusing(
            x, timestep, conditional_inputs, stages=self.stages, features=self.features
        )
        self.calls += 1
        return output
