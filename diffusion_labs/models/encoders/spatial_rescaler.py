"""Maps at the size of latents."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SpatialRescaler(nn.Module):
    """Halves a map a number of times, bilinearly, and may then mix its channels: Latent Diffusion's maps of classes.

    ``Concatenation`` gives the result to the network (arXiv 2112.10752, section 4.3.2).

    Args:
        halvings: how often the sides are halved.
        in_channels: of the map, if its channels are mixed.
        out_channels: of the result, if its channels are mixed.
        name: the conditional input of the network.

    Raises:
        ValueError: if only one of the numbers of channels is given.

    Example:
        >>> SpatialRescaler(2, 182, 3)(torch.randn(1, 182, 64, 64))["map"].shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(
        self, halvings: int, in_channels: int | None = None, out_channels: int | None = None, *, name: str = "map"
    ) -> None:
        super().__init__()
        if (in_channels is None) != (out_channels is None):
            raise ValueError(
                f"in_channels ({in_channels}) and out_channels ({out_channels}) are needed both, or neither"
            )
        self.halvings = halvings
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.name = name
        self.mix: nn.Module = nn.Identity()
        if in_channels is not None and out_channels is not None:
            self.mix = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, value: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """The rescaled map."""
        for _ in range(self.halvings):
            value = F.interpolate(value, scale_factor=0.5, mode="bilinear")
        return {self.name: self.mix(value)}
