"""Super-resolution by concatenation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput

LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}  # by the rank of x


class SuperResolution(Adapter):
    """Gives the model a low-resolution image, resized to the size of x, as extra channels.

    The model gets the channels ``[x, resized image]`` (SR3, arXiv 2104.07636, Sec. 2.3). The resizing is
    done here, so it is the same in training and in use.

    Args:
        model: takes as many channels more as the low-resolution image has.
        image_key: name of the image, ``[b, c, ...]``.
        mode: interpolation, as of ``torch.nn.functional.interpolate``; ADM's bilinear by default, which is "linear" for
            sequences and "trilinear" for volumes.
        antialias: likewise. It changes what "bicubic" means, upwards too: its coefficient is then -0.5, not -0.75.
    """

    changes = frozenset({"number of channels"})

    def __init__(
        self,
        model: nn.Module,
        *,
        image_key: str = "low_resolution",
        mode: str = "bilinear",
        antialias: bool = False,
    ) -> None:
        super().__init__(model, [image_key])
        self.image_key = image_key
        self.mode = mode
        self.antialias = antialias

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``.

        Raises:
            ValueError: if there is no low-resolution image, or it is not of the rank of x.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        image = conditions.get(self.image_key)
        if image is None:
            raise ValueError(f"super-resolution needs conditional_inputs['{self.image_key}']; got {sorted(conditions)}")
        if image.ndim != x.ndim:
            raise ValueError(
                f"conditional_inputs['{self.image_key}'] has shape {list(image.shape)}; "
                f"it must have the rank of x, {list(x.shape)}"
            )
        mode = LINEAR.get(x.ndim, self.mode) if self.mode == "bilinear" else self.mode
        resized = F.interpolate(image.to(x.dtype), size=x.shape[2:], mode=mode, antialias=self.antialias)
        output: DiffusionOutput = self.model(torch.cat([x, resized], dim=1), timestep, conditions)
        return output
