"""Convolution with a 3x3 kernel by Winograd's F(4x4, 3x3), and its gradients; derived in docs/kernels.md."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator, Sizes, mismatch

CHANNELS = 16  # a multiple of them is computed at once
TILE = 4  # pixels per side of a tile
LEAST_TILES = 4  # with fewer, transforming the weights costs what is saved
LEAST_TILES_PADDED = 16  # likewise, of outputs with channels of zeros
BLOCK = 24  # tiles, whose transforms fit the L2 cache
PAIRS_PER_TILE = 2**10  # of channels: for fewer tiles, to go through the sums of all pairs takes longest
GRADIENT_BLOCK = 48  # more, as the gradients of all weights are read and written for each block


def convolution_3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` with a 3x3 kernel, by a faster one where it is.

    Args:
        x: input ``[b, in_channels, h, w]``.
        weight: ``[out_channels, in_channels, 3, 3]``.
        bias: ``[out_channels]``.
    """
    if not (fits(x, weight, bias) and suited(x, weight, bias)):
        return F.conv2d(x, weight, bias, padding=1)
    channels, more = weight.shape[0], -weight.shape[0] % CHANNELS
    if more == 0:
        return winograd_convolution(x, weight, bias, False)
    # With channels of zeros it is faster than without the kernel, even with 15 of them
    weight, bias = F.pad(weight, (0, 0) * 3 + (0, more)), None if bias is None else F.pad(bias, (0, more))
    return winograd_convolution(x, weight, bias, False)[:, :channels].contiguous()


def fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel is written for these sizes, and faster.

    In a graph the number of samples does not matter: it may change from call to call, and the graph is to stay.
    """
    sizes = _sizes(x, weight, bias, False)
    if sizes is None:
        return False
    batch, _, channels, height, width = sizes
    least = LEAST_TILES if channels % CHANNELS == 0 else LEAST_TILES_PADDED
    return torch.compiler.is_compiling() or batch * height * width >= least * TILE**2


def _sizes(x: Tensor, weight: Tensor, bias: Tensor | None, flipped: bool) -> Sizes | None:
    """Samples, channels of inputs and outputs, height and width, if the tensors agree and the kernel takes them."""
    if not x.dim() == weight.dim() == 4:
        return None
    batch, channels, height, width = x.shape
    outputs, inputs, *kernel = weight.shape
    if flipped:
        outputs, inputs = inputs, outputs
    if inputs != channels or inputs == 0 or height == 0 or width == 0:
        return None
    if inputs % CHANNELS != 0 or height % TILE != 0 or width % TILE != 0:
        return None
    if kernel != [3, 3] or (bias is not None and bias.shape != (outputs,)):
        return None
    return batch, channels, outputs, height, width


@Operator
def winograd_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, flipped: bool) -> Tensor:
    """The convolution; if ``flipped``, its transpose: kernels turned by half a turn, inputs and outputs exchanged.

    Args:
        x: input ``[b, in_channels, h, w]``; ``[b, out_channels, h, w]`` if flipped.
        weight: ``[out_channels, in_channels, 3, 3]``.
        bias: one number per channel of the output.
        flipped: whether to compute the transpose.
    """
    x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    y, sizes = _allocate(x, weight, bias, flipped)
    call("winograd_convolution", x, weight, bias, y, *sizes, int(flipped), BLOCK)
    return y


def _allocate(x: Tensor, weight: Tensor, bias: Tensor | None, flipped: bool) -> tuple[Tensor, Sizes]:
    sizes = _sizes(x, weight, bias, flipped)
    if sizes is None or sizes[2] % CHANNELS != 0:
        raise mismatch("winograd_convolution", x, weight, bias)
    batch, _, channels, height, width = sizes
    return x.new_empty(batch, channels, height, width), sizes


@winograd_convolution.register_fake
def _output(x: Tensor, weight: Tensor, bias: Tensor | None, flipped: bool) -> Tensor:
    return _allocate(x, weight, bias, flipped)[0]


@Operator
def winograd_weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of the weights of a convolution.

    Args:
        x: its input ``[b, in_channels, h, w]``.
        dy: the gradient of its output ``[b, out_channels, h, w]``.

    Returns:
        ``[out_channels, in_channels, 3, 3]``.
    """
    x, dy = x.contiguous(), dy.contiguous()
    dw = _weights(x, dy)
    if x.shape[0] * x.shape[2] * x.shape[3] * PAIRS_PER_TILE < dw.shape[0] * dw.shape[1] * TILE**2:
        sizes = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, not transposed, and one group
        return torch.ops.aten.convolution_backward(dy, x, dw, None, *sizes, [False, True, False])[1].contiguous()
    call("winograd_weight_gradient", x, dy, dw, x.shape[0], x.shape[1], dy.shape[1], *x.shape[2:], GRADIENT_BLOCK)
    return dw


@winograd_weight_gradient.register_fake
def _weights(x: Tensor, dy: Tensor) -> Tensor:
    if x.dim() != 4 or dy.dim() != 4 or x.shape[0] != dy.shape[0] or x.shape[2:] != dy.shape[2:]:
        raise mismatch("winograd_weight_gradient", x, dy)
    if any(value.shape[1] % CHANNELS or value.shape[2] % TILE or value.shape[3] % TILE for value in (x, dy)):
        raise mismatch("winograd_weight_gradient", x, dy)
    return x.new_empty(dy.shape[1], x.shape[1], 3, 3)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, bool], output: Tensor) -> None:
    x, weight, _, ctx.flipped = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    dx = winograd_convolution(dy, weight, None, not ctx.flipped) if ctx.needs_input_grad[0] else None
    dw = winograd_weight_gradient(*((dy, x) if ctx.flipped else (x, dy))) if ctx.needs_input_grad[1] else None
    return dx, dw, dy.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None


winograd_convolution.register_autograd(_gradients, setup_context=_keep)


def _keep_both(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _second_gradients(ctx: Any, ddw: Tensor) -> tuple[Tensor, Tensor]:
    # dw is linear in x and in dy, as the output is linear in x and in the weights
    x, dy = ctx.saved_tensors
    return winograd_convolution(dy, ddw, None, True), winograd_convolution(x, ddw, None, False)


winograd_weight_gradient.register_autograd(_second_gradients, setup_context=_keep_both)


# Nominal numbers: those of the products that the definition of the convolution has
@register_flop_formula(torch.ops.diffusion_labs.winograd_convolution)
def _flops(x: Any, weight: Any, bias: Any, flipped: bool, *, out_shape: Any, **_: Any) -> int:
    return conv_flop_count(x, weight, out_shape, transposed=flipped)


@register_flop_formula(torch.ops.diffusion_labs.winograd_weight_gradient)
def _weight_flops(x: Any, dy: Any, *, out_shape: Any, **_: Any) -> int:
    return conv_flop_count(x, out_shape, dy)
