"""Convolution with a kernel of one position, whose inputs and outputs may be planes or tokens, and its gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator

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
    if fits(x, weight, from_tokens) and suited(x, weight, bias):
        return matrix_product(x, weight, bias, from_tokens, to_tokens, False)
    return _reference(x, weight, bias, from_tokens, to_tokens)


def fits(x: Tensor, weight: Tensor, tokens: bool) -> bool:
    """Whether the kernel is written for these sizes, and faster.

    In a graph the number of samples does not matter: it may change from call to call, and the graph is to stay.
    """
    positions = x.shape[1 if tokens else 2]
    return weight.shape[0] % CHANNELS == weight.shape[1] % CHANNELS == positions % POSITIONS == 0 and (
        torch.compiler.is_compiling() or x.numel() * weight.shape[0] >= LEAST_SIZE
    )


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
    y = _output(x, weight, bias, from_tokens, to_tokens, flipped)
    channels, size = (x.shape[2], x.shape[1]) if from_tokens else (x.shape[1], x.shape[2])
    out = weight.shape[1 if flipped else 0]
    layout = (int(from_tokens), int(to_tokens), int(flipped))
    call("pointwise", x, weight, bias, y, x.shape[0], channels, out, size, *layout)
    return y


@matrix_product.register_fake
def _output(
    x: Tensor, weight: Tensor, bias: Tensor | None, from_tokens: bool, to_tokens: bool, flipped: bool
) -> Tensor:
    out, size = weight.shape[1 if flipped else 0], x.shape[1 if from_tokens else 2]
    return x.new_empty(x.shape[0], *((size, out) if to_tokens else (out, size)))


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
    return x.new_empty(dy.shape[2 if to_tokens else 1], x.shape[2 if from_tokens else 1])


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
