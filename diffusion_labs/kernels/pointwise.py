"""Convolution with a kernel of one position, whose inputs and outputs may be planes or tokens, and its gradients."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator, Sizes, mismatch

CHANNELS = 16  # a multiple of them is computed at once
POSITIONS = 4  # likewise
LEAST_SIZE = 2**21  # products, with fewer of which calling the kernel costs what is saved


def pointwise_convolution(x: Tensor, weight: Tensor, bias: Tensor, *, from_tokens: bool, to_tokens: bool) -> Tensor:
    """``weight @ x + bias`` at each position, by a faster kernel where there is one.

    Args:
        x: planes ``[b, in_channels, n]``, or tokens ``[b, n, in_channels]``.
        weight: ``[out_channels, in_channels]``.
        bias: ``[out_channels]``.
        from_tokens: whether x is tokens.
        to_tokens: whether the result is to be.

    Returns:
        Planes ``[b, out_channels, n]``, or tokens ``[b, n, out_channels]``.
    """
    if fits(x, weight, bias, from_tokens) and suited(x, weight, bias):
        return matrix_product(x, weight, bias, from_tokens, to_tokens, False)
    return _reference(x, weight, bias, from_tokens, to_tokens)


def fits(x: Tensor, weight: Tensor, bias: Tensor, tokens: bool) -> bool:
    """Whether the kernel is written for these sizes, and faster.

    In a graph the number of samples does not matter: it may change from call to call, and the graph is to stay.
    """
    sizes = _sizes(x, weight, bias, tokens, False)
    return sizes is not None and (torch.compiler.is_compiling() or math.prod(sizes) >= LEAST_SIZE)


def _sizes(x: Tensor, weight: Tensor, bias: Tensor | None, tokens: bool, flipped: bool) -> Sizes | None:
    """Samples, channels of inputs and outputs, and positions, if the tensors agree and the kernel takes them."""
    if x.dim() != 3 or weight.dim() != 2:
        return None
    batch, channels, positions = x.shape
    outputs, inputs = weight.shape
    if tokens:
        channels, positions = positions, channels
    if flipped:
        outputs, inputs = inputs, outputs
    if inputs != channels or outputs % CHANNELS != 0 or inputs % CHANNELS != 0 or positions % POSITIONS != 0:
        return None
    if bias is not None and bias.shape != (outputs,):
        return None
    return batch, channels, outputs, positions


def _reference(x: Tensor, weight: Tensor, bias: Tensor, from_tokens: bool, to_tokens: bool) -> Tensor:
    # On the CPU, torch's convolutions take up to twice the time of the same product of matrices
    batch = x.shape[0]
    planes = x.mT if from_tokens else x
    y = torch.baddbmm(bias[:, None].expand(batch, -1, -1), weight.expand(batch, -1, -1), planes)
    return y.mT.contiguous() if to_tokens else y


@Operator
def matrix_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, from_tokens: bool, to_tokens: bool, flipped: bool
) -> Tensor:
    """See ``pointwise_convolution``; if ``flipped``, the weights are ``[in_channels, out_channels]``."""
    x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    y, sizes = _allocate(x, weight, bias, from_tokens, to_tokens, flipped)
    call("pointwise", x, weight, bias, y, *sizes, int(from_tokens), int(to_tokens), int(flipped))
    return y


def _allocate(
    x: Tensor, weight: Tensor, bias: Tensor | None, from_tokens: bool, to_tokens: bool, flipped: bool
) -> tuple[Tensor, Sizes]:
    sizes = _sizes(x, weight, bias, from_tokens, flipped)
    if sizes is None:
        raise mismatch("matrix_product", x, weight, bias)
    batch, _, channels, positions = sizes
    return x.new_empty(batch, *((positions, channels) if to_tokens else (channels, positions))), sizes


@matrix_product.register_fake
def _output(
    x: Tensor, weight: Tensor, bias: Tensor | None, from_tokens: bool, to_tokens: bool, flipped: bool
) -> Tensor:
    return _allocate(x, weight, bias, from_tokens, to_tokens, flipped)[0]


@Operator
def matrix_product_weight_gradient(x: Tensor, dy: Tensor, from_tokens: bool, to_tokens: bool) -> Tensor:
    """The gradient of the weights ``[out_channels, in_channels]``, from the input and the gradient of the output."""
    x, dy = x.contiguous(), dy.contiguous()
    dw = _weights(x, dy, from_tokens, to_tokens)
    size = x.shape[1 if from_tokens else 2]
    layout = (int(from_tokens), int(to_tokens))
    call("pointwise_weight_gradient", x, dy, dw, x.shape[0], dw.shape[1], dw.shape[0], size, *layout)
    return dw


@matrix_product_weight_gradient.register_fake
def _weights(x: Tensor, dy: Tensor, from_tokens: bool, to_tokens: bool) -> Tensor:
    if x.dim() != 3 or dy.dim() != 3 or x.shape[0] != dy.shape[0]:
        raise mismatch("matrix_product_weight_gradient", x, dy)
    dw = x.new_empty(dy.shape[2 if to_tokens else 1], x.shape[2 if from_tokens else 1])
    sizes = _sizes(x, dw, None, from_tokens, False)
    if sizes is None or dy.shape[1 if to_tokens else 2] != sizes[-1]:
        raise mismatch("matrix_product_weight_gradient", x, dy)
    return dw


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.layout = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    from_tokens, to_tokens, flipped = ctx.layout
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = matrix_product(dy, weight, None, to_tokens, from_tokens, not flipped)
    if ctx.needs_input_grad[1]:
        dw = matrix_product_weight_gradient(
            *((dy, x, to_tokens, from_tokens) if flipped else (x, dy, from_tokens, to_tokens))
        )
    bias = dy.sum((0, 1) if to_tokens else (0, 2)) if ctx.needs_input_grad[2] else None
    return dx, dw, bias, None, None, None


matrix_product.register_autograd(_gradients, setup_context=_keep)


def _keep_both(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.from_tokens, ctx.to_tokens = inputs
    ctx.save_for_backward(*tensors)


def _second_gradients(ctx: Any, ddw: Tensor) -> tuple[Tensor | None, ...]:
    # dw is linear in x and in dy, as the output is linear in x and in the weights
    x, dy = ctx.saved_tensors
    dx = matrix_product(dy, ddw, None, ctx.to_tokens, ctx.from_tokens, True)
    return dx, matrix_product(x, ddw, None, ctx.from_tokens, ctx.to_tokens, False), None, None


matrix_product_weight_gradient.register_autograd(_second_gradients, setup_context=_keep_both)


@register_flop_formula(torch.ops.diffusion_labs.matrix_product)
def _flops(x: Any, weight: Any, bias: Any, from_tokens: Any, *_: Any, **__: Any) -> int:
    return 2 * weight[0] * weight[1] * x[0] * x[1 if from_tokens else 2]


@register_flop_formula(torch.ops.diffusion_labs.matrix_product_weight_gradient)
def _weight_flops(x: Any, dy: Any, from_tokens: Any, to_tokens: Any, **_: Any) -> int:
    return 2 * dy[2 if to_tokens else 1] * x[0] * x[1] * x[2]
