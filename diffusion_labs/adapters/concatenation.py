"""Conditions beside x, as extra channels."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput


class Concatenation(Adapter):
    """Gives the model maps, or latents of other images, as extra channels: ``[x, map_1, map_2, ...]``.

    One of the two ways in which conditions enter Latent Diffusion (arXiv 2112.10752, section 4.3.2, for maps of
    classes). An absent map is zeros. Where an adapter around this one works at a lower resolution, maps are averaged.

    Args:
        model: takes as many channels more as the maps have.
        channels: channels of each map, by the name of the conditional input ``[b, channels, ...]``, in this order.
    """

    changes = frozenset({"number of channels"})

    def __init__(self, model: nn.Module, channels: Mapping[str, int]) -> None:
        super().__init__(model, channels)
        self.channels = dict(channels)

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``.

        Raises:
            ValueError: if the shape of a map does not fit.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        batch, _, *size = x.shape
        maps = [
            fit(name, conditions[name], channels, x, MEANS)
            if name in conditions
            else x.new_zeros(batch, channels, *size)
            for name, channels in self.channels.items()
        ]
        output: DiffusionOutput = self.model(torch.cat([x, *maps], dim=1), timestep, conditions)
        return output


MEANS = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)  # of sequences, images and volumes
MAXIMA = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)


def fit(name: str, value: Tensor, channels: int, x: Tensor, pools: Sequence[Callable[..., Tensor]]) -> Tensor:
    """A conditional input at the size of x: pooled where it is a whole multiple of that.

    Raises:
        ValueError: if it is not, or has other channels.
    """
    size, own = list(x.shape[2:]), list(value.shape[2:])
    factor = own[0] // size[0] if own else 1
    if value.shape[1] != channels or factor < 1 or own != [factor * side for side in size]:
        raise ValueError(
            f"conditional_inputs['{name}'] has shape {list(value.shape)}; for this x it must be "
            f"{[len(x), channels, *size]}, or a whole multiple of that size"
        )
    value = value.to(x.dtype)
    return value if factor == 1 else pools[len(size) - 1](value, size)
