"""Doubling and halving of the resolution, with and without parameters."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs import kernels
from diffusion_labs.layers.convolution import check_dims, conv

_ZERO_PADS: dict[int, Callable[..., nn.Module]] = {1: nn.ZeroPad1d, 2: nn.ZeroPad2d, 3: nn.ZeroPad3d}


class AveragePool2d(nn.AvgPool2d):
    """The mean of each 2 x 2 pixels, by a faster kernel where there is one: see ``kernels``."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Tensor:
        return kernels.average_pool(input)


class NearestUpsample(nn.Upsample):
    """Doubles every side by repeating, by a faster kernel where there is one: see ``kernels``."""

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="nearest")

    def forward(self, input: Float[Tensor, "b c *d"]) -> Tensor:
        return kernels.nearest_upsample(input) if input.dim() == 4 else super().forward(input)


_AVERAGE_POOLS: dict[int, Callable[[], nn.Module]] = {
    1: lambda: nn.AvgPool1d(2),
    2: AveragePool2d,
    3: lambda: nn.AvgPool3d(2),
}


def average_pool(dims: int) -> nn.Module:
    """Halve every side by averaging, without parameters: ``[b, c, *size] -> [b, c, *size / 2]``.

    Raises:
        ValueError: if ``dims`` is not 1, 2 or 3.
    """
    check_dims(dims)
    return _AVERAGE_POOLS[dims]()


def nearest_upsample() -> nn.Module:
    """Double every side by repeating, without parameters: ``[b, c, *size] -> [b, c, *size * 2]``."""
    return NearestUpsample()


class Downsample(nn.Module):
    """Halve every side with a convolution of stride 2; ``average_pool`` is the one without parameters.

    Args:
        channels: channels of input and output.
        dims: number of spatial dimensions.
        padding: zeros before and after each side. ``(1, 1)`` in U-Nets (ADM, LDM); ``(0, 1)`` in the
            autoencoder of LDM, whose weights give shifted images with the other.

    Raises:
        ValueError: if ``dims`` is not 1, 2 or 3.
    """

    def __init__(self, channels: int, *, dims: int = 2, padding: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        check_dims(dims)
        symmetric = padding[0] == padding[1]
        self.pad = nn.Identity() if symmetric else _ZERO_PADS[dims](padding * dims)
        self.conv = conv(dims, channels, channels, 3, stride=2, padding=padding[0] if symmetric else 0)

    def forward(self, x: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *e"]:
        return self.conv(self.pad(x))


class Upsample(nn.Module):
    """Double every side by repeating, then convolve; ``nearest_upsample`` is the one without parameters.

    Args:
        channels: channels of input and output.
        dims: number of spatial dimensions.

    Raises:
        ValueError: if ``dims`` is not 1, 2 or 3.
    """

    def __init__(self, channels: int, *, dims: int = 2) -> None:
        super().__init__()
        self.resize = nearest_upsample()
        self.conv = conv(dims, channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *e"]:
        return self.conv(self.resize(x))
