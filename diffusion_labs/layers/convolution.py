"""Convolutions over 1, 2 or 3 spatial dimensions, and zero initialisation."""

from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs import kernels

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size, by a faster kernel where there is one: see ``kernels``.

    Args:
        in_channels: channels of the input ``[b, in_channels, h, w]``.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        if self.padding_mode != "zeros":  # set since, such as "circular" for textures to be tiled
            return super().forward(input)
        return kernels.convolution_3x3(input, self.weight, self.bias)


class _Pointwise(nn.Module):
    """A convolution of kernel size 1: ``y = W x + bias`` at each position, by a faster kernel where there is one."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, input: Float[Tensor, "b c *d"], *, to_tokens: bool = False) -> Tensor:
        """Multiply; a sequence of vectors, which is ``[b, n, c]`` in memory, is taken as it is.

        Args:
            input: planes ``[b, c, *d]``.
            to_tokens: whether to return a sequence of vectors ``[b, n, o]``, not planes ``[b, o, *d]``.
        """
        assert self.bias is not None, "conv makes none without"
        if input.device.type != "cpu":
            y: Tensor = super().forward(input)
            return y.flatten(2).mT.contiguous() if to_tokens else y
        x = input.flatten(2)
        from_tokens = x.mT.is_contiguous() and not x.is_contiguous()
        x = x.mT if from_tokens else x
        y = kernels.pointwise_convolution(
            x, self.weight.flatten(1), self.bias, from_tokens=from_tokens, to_tokens=to_tokens
        )
        return y if to_tokens else y.reshape(input.shape[0], self.weight.shape[0], *input.shape[2:])


class Pointwise1d(_Pointwise, nn.Conv1d):
    """See ``conv``."""


class Pointwise2d(_Pointwise, nn.Conv2d):
    """See ``conv``."""


class Pointwise3d(_Pointwise, nn.Conv3d):
    """See ``conv``."""


Classes = dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]]
_CONVOLUTIONS: Classes = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POINTWISE: Classes = {1: Pointwise1d, 2: Pointwise2d, 3: Pointwise3d}


def check_dims(dims: int) -> None:
    """Raise a ``ValueError`` unless ``dims`` is a number of spatial dimensions that torch can convolve."""
    if dims not in _CONVOLUTIONS:
        raise ValueError(f"dims ({dims}) must be 1, 2 or 3: the number of spatial dimensions of the data")


def conv(
    dims: int, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0
) -> Conv:
    """A convolution with bias over ``dims`` spatial dimensions.

    Args:
        dims: the number of spatial dimensions: 1 (sequences), 2 (images) or 3 (volumes, video).
        in_channels: channels of the input ``[b, in_channels, *size]``.
        out_channels: channels of the output.
        kernel_size: side of the kernel.
        stride: step of the kernel.
        padding: zeros added on each side.

    Raises:
        ValueError: if ``dims`` is not 1, 2 or 3.
    """
    check_dims(dims)
    if (dims, kernel_size, stride, padding) == (2, 3, 1, 1):
        return Conv3x3(in_channels, out_channels)
    if (kernel_size, stride, padding) == (1, 1, 0):
        return _POINTWISE[dims](in_channels, out_channels, 1)
    return _CONVOLUTIONS[dims](in_channels, out_channels, kernel_size, stride=stride, padding=padding)


def zero_init(module: AnyModule) -> AnyModule:
    """Set every parameter of ``module`` to zero, and return it.

    A residual block whose last layer is zero starts as the identity, and a network whose last layer
    is zero starts by predicting zero.
    """
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
