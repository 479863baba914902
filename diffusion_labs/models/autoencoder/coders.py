"""From images to features of low resolution, and back."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs.layers import Conv


class Encoder(nn.Module):
    """From images down to features.

    Args:
        conv_in: the first convolution.
        levels: one for each resolution, from the highest to the lowest; each ends with the way down to the next.
        middle: the blocks at the lowest resolution.
        head: norm, SiLU and a convolution to the features' channels.
    """

    def __init__(self, conv_in: Conv, levels: Sequence[nn.Module], middle: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.conv_in = conv_in
        self.levels = nn.ModuleList(levels)
        self.middle = middle
        self.head = head

    def forward(self, x: Float[Tensor, "b c *d"]) -> Float[Tensor, "b f *e"]:
        h = self.conv_in(x)
        for level in self.levels:
            h = level(h)
        return self.head(self.middle(h))


class Decoder(nn.Module):
    """From features up to images: the encoder's mirror, with one residual block more in each level.

    Args:
        conv_in: the first convolution.
        middle: the blocks at the lowest resolution.
        levels: one for each resolution, from the lowest to the highest, in the order in which they run; each ends
            with the way up to the next.
        head: norm, SiLU and a convolution to the images' channels.
    """

    def __init__(self, conv_in: Conv, middle: nn.Module, levels: Sequence[nn.Module], head: nn.Sequential) -> None:
        super().__init__()
        self.conv_in = conv_in
        self.middle = middle
        self.levels = nn.ModuleList(levels)
        self.head = head

    def forward(self, z: Float[Tensor, "b f *e"]) -> Float[Tensor, "b c *d"]:
        h = self.middle(self.conv_in(z))
        for level in self.levels:
            h = level(h)
        return self.head(h)
