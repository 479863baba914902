"""Working on patches of pixels."""

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput


class Patchify(Adapter):
    """Folds p x p patches of pixels into channels, so that the model works at 1/p of the resolution.

    Exact in both directions (pixel unshuffle and shuffle), and about p^2 times cheaper for a network of
    the same width (Simple Diffusion, arXiv 2301.11093, Sec. 2.3).

    Args:
        model: takes ``p^2`` times the channels, at 1/p of the size.
        patch_size: p.
    """

    changes = frozenset({"size"})

    def __init__(self, model: nn.Module, patch_size: int) -> None:
        super().__init__(model)
        if patch_size < 1:
            raise ValueError(f"patch_size ({patch_size}) must be at least 1")
        self.patch_size = patch_size

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``.

        Raises:
            ValueError: if ``x`` is not a batch of images whose sides patch_size divides.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        if x.ndim != 4 or x.shape[2] % self.patch_size or x.shape[3] % self.patch_size:
            raise ValueError(
                f"x has shape {list(x.shape)}; it must be [b, c, h, w] with h and w divisible by "
                f"patch_size ({self.patch_size})"
            )
        output: DiffusionOutput = self.model(F.pixel_unshuffle(x, self.patch_size), timestep, conditions)
        return DiffusionOutput._make([None if y is None else F.pixel_shuffle(y, self.patch_size) for y in output])
