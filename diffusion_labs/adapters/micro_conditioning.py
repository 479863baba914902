"""The size of an image as a condition."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.keeping import kept
from diffusion_labs.output import DiffusionOutput


class MicroConditioning(Adapter):
    """Tells the model the size of the image that is made, where nothing else is said.

    Stable Diffusion XL (arXiv 2307.01952, section 2.2) is conditioned on the size of the original image, the corner at
    which it was cropped, and the size of the target: ``[h, w, top, left, h, w]`` in pixels. Where the condition is
    absent, it is that of an image of x's own size which was not cropped: ``[h, w, 0, 0, h, w]``.

    Args:
        model: takes the six numbers.
        factor: pixels a side of an element of x: that of the autoencoder, or 1.
        name: the conditional input, ``[b, 6]``.
    """

    needs = frozenset({"size"})

    def __init__(self, model: nn.Module, factor: int = 1, *, name: str = "sizes") -> None:
        if factor < 1:
            raise ValueError(f"factor ({factor}) must be at least 1")
        super().__init__(model, [name])
        self.factor = factor
        self.name = name

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``."""
        conditions = self.check_conditions(conditional_inputs, x)
        if self.name not in conditions:
            conditions = {**conditions, self.name: kept(self.whole, x.shape[2:], len(x), x.device)}
        output: DiffusionOutput = self.model(x, timestep, conditions)
        return output

    def whole(self, sides: Sequence[int], batch: int, device: torch.device) -> Tensor:
        """The condition of images that were not cropped, ``[b, 6]``, of the size of x."""
        size = [float(self.factor * side) for side in sides]
        return torch.tensor([*size, *[0.0] * len(size), *size], device=device).expand(batch, -1)
