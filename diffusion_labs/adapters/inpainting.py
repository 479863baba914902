"""Inpainting by concatenation."""

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput


class InPainting(Adapter):
    """Gives the model the known part of an image and the mask of the rest, as extra channels.

    The model gets the channels ``[x, masked image, mask]`` (GLIDE, arXiv 2112.10741, Sec. 2.4; the order
    is Latent Diffusion's). Without a mask everything is to be painted, so a model trained with some
    whole-image masks also generates freely.

    Args:
        model: takes ``channels + 1`` channels more than the data has.
        channels: channels of the image.
        mask_key: name of the mask, ``[b, 1, ...]``: 1 where the image is to be painted, 0 where known.
        image_key: name of the image, ``[b, channels, ...]``, 0 where it is to be painted.
    """

    def __init__(
        self, model: nn.Module, channels: int, *, mask_key: str = "mask", image_key: str = "masked_image"
    ) -> None:
        super().__init__(model, [mask_key, image_key])
        self.channels = channels
        self.mask_key = mask_key
        self.image_key = image_key

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
        for name, value, channels in ((self.mask_key, mask, 1), (self.image_key, image, self.channels)):
            if list(value.shape) != [batch, channels, *size]:
                raise ValueError(
                    f"conditional_inputs['{name}'] has shape {list(value.shape)}; for this x it must be "
                    f"{[batch, channels, *size]}"
                )
        grown = torch.cat([x, image.to(x.dtype), mask.to(x.dtype)], dim=1)
        output: DiffusionOutput = self.model(grown, timestep, conditions)
        return output
