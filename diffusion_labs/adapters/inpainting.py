"""Inpainting by concatenation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.concatenation import MAXIMA, MEANS, fit
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput

Join = Callable[[Tensor, Tensor, Tensor], Tensor]


def image_then_mask(x: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """``[x, masked image, mask]``."""
    return torch.cat([x, image, mask], dim=1)


def image_then_signed_mask(x: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """``[x, masked image, 2 mask - 1]``: Latent Diffusion, which has masks, like images, between -1 and 1."""
    return torch.cat([x, image, 2 * mask - 1], dim=1)


def mask_then_image(x: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """``[x, mask, masked image]``: Stable Diffusion's inpainting."""
    return torch.cat([x, mask, image], dim=1)


class InPainting(Adapter):
    """Gives the model the known part of an image and the mask of the rest, as extra channels.

    The model gets x, the masked image and the mask (GLIDE, arXiv 2112.10741, Sec. 2.4). Without a mask everything is
    to be painted, so a model trained with some whole-image masks also generates freely. Where an adapter around this
    one works at a lower resolution, or x is a latent and the mask is not, the image is averaged, and a patch counts as
    to be painted if any of its pixels is.

    Args:
        model: takes ``channels + 1`` channels more than the data has.
        channels: channels of the image.
        mask_key: name of the mask, ``[b, 1, ...]``: 1 where the image is to be painted, 0 where known.
        image_key: name of the image, ``[b, channels, ...]``, 0 where it is to be painted.
        join: puts the channels in order: ``image_then_mask``, ``image_then_signed_mask`` or ``mask_then_image``.
    """

    changes = frozenset({"number of channels"})

    def __init__(
        self,
        model: nn.Module,
        channels: int,
        *,
        mask_key: str = "mask",
        image_key: str = "masked_image",
        join: Join = image_then_mask,
    ) -> None:
        super().__init__(model, [mask_key, image_key])
        self.channels = channels
        self.mask_key = mask_key
        self.image_key = image_key
        self.join = join

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``.

        Raises:
            ValueError: if only one of mask and image is given, or their shape does not fit.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        batch, _, *size = x.shape
        mask, image = conditions.get(self.mask_key), conditions.get(self.image_key)
        if mask is None and image is None:
            mask, image = x.new_ones(batch, 1, *size), x.new_zeros(batch, self.channels, *size)
        elif mask is None or image is None:
            raise ValueError(f"inpainting needs both '{self.mask_key}' and '{self.image_key}', or neither")
        image = fit(self.image_key, image, self.channels, x, MEANS)
        mask = fit(self.mask_key, mask, 1, x, MAXIMA)
        output: DiffusionOutput = self.model(self.join(x, image, mask), timestep, conditions)
        return output
