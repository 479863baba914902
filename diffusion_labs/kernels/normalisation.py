"""Group normalisation, scale and shift, SiLU and dropout in one pass over the data."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator, Sizes, mismatch

LANES = 16  # numbers in the largest register
LEAST_SIZE = 2**15  # with fewer numbers, calling the kernel costs what is saved
HASH_BITS = 2**32 - 1


def fits_norm(x: Tensor, weight: Tensor, bias: Tensor, *others: Tensor | None) -> bool:
    """Whether ``norm`` is written for these tensors, and faster than single operations.

    Scale and shift are made of the weight and the bias of the norm, ``[c]``, and of others that may be broadcast.
    In a graph the number of samples does not matter: it may change from call to call, and the graph is to stay.
    """
    if x.dim() < 3:
        return False
    batch, channels, *size = x.shape
    positions = math.prod(size)
    return (
        positions % LANES == 0
        and (torch.compiler.is_compiling() or LEAST_SIZE <= batch * channels * positions <= HASH_BITS)
        and weight.numel() == bias.numel() == channels
        and suited(x, weight, bias, *others)
    )


def norm(
    x: Tensor, scale: Tensor, shift: Tensor, num_groups: int, eps: float, *, silu: bool = False, dropout: float = 0.0
) -> Tensor:
    """``dropout(SiLU(group_norm(x) * scale + shift))`` of what ``fits_norm``.

    Args:
        x: input ``[b, c, *size]``.
        scale: ``[b, c]``, or ``[c]`` for all samples.
        shift: likewise.
        num_groups: groups of channels.
        eps: added to the variance.
        silu: whether SiLU follows.
        dropout: rate of dropout. Which elements are dropped is a function of their number and of one draw from torch.
    """
    seed = torch.randint(2**62, ()) if dropout > 0 else None
    scale, shift = scale.expand(x.shape[:2]), shift.expand(x.shape[:2])
    return group_norm(x, scale, shift, seed, num_groups, eps, silu, dropout)[0]


def reference(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    seed: Tensor | None,
    num_groups: int,
    eps: float,
    silu: bool,
    dropout: float,
) -> Tensor:
    """The same in PyTorch's operations, which can be differentiated any number of times."""
    shape = (*scale.shape, *[1] * (x.dim() - 2))
    y = F.group_norm(x, num_groups, eps=eps) * scale.reshape(shape) + shift.reshape(shape)
    y = F.silu(y) if silu else y
    return y if seed is None else y * random_mask(x.shape, seed, dropout).to(y)


def random_mask(shape: torch.Size, seed: Tensor, dropout: float) -> Tensor:
    """What dropout multiplies by: 0 at the given rate, else ``1 / (1 - rate)``.

    A hash of the element's number and the seed: two rounds, with the multipliers of MurmurHash3's finaliser.
    """
    h = (torch.arange(shape.numel()) * 0x9E3779B1 & HASH_BITS) ^ (seed & HASH_BITS)
    h = ((h ^ h >> 16) * 0x85EBCA6B + (seed >> 32)) & HASH_BITS
    h = (h ^ h >> 13) * 0xC2B2AE35 & HASH_BITS
    kept = (h ^ h >> 16) >> 1 >= int(dropout * 2**31)
    return kept.reshape(shape) / (1 - dropout if dropout < 1 else 1)


@Operator
def group_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    seed: Tensor | None,
    num_groups: int,
    eps: float,
    silu: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and mean and 1 / standard deviation of each group, ``[b, groups]``; see ``norm``."""
    x, scale, shift = x.contiguous(), _rows(scale), _rows(shift)
    *results, sizes = _allocate(x, scale, shift, num_groups, dropout)
    layout = (scale.stride(0), shift.stride(0), int(silu))
    seed_value = 0 if seed is None else int(seed)
    call("group_norm", x, scale, shift, *results, *sizes, *layout, float(eps), float(dropout), seed_value)
    y, mean, rstd = results
    return y, mean, rstd


def _rows(vectors: Tensor) -> Tensor:
    """Rows that are each contiguous, as they are or copied; all are one row where one is for all samples."""
    return vectors if vectors.stride(-1) == 1 else vectors.contiguous()


def _sizes(x: Tensor, scale: Tensor, shift: Tensor, num_groups: Any) -> Sizes | None:
    """Samples, channels, positions and groups, if the tensors agree and the kernel takes them."""
    batch, channels, *size = x.shape
    positions = math.prod(size)
    if not scale.shape == shift.shape == (batch, channels) or positions % LANES != 0:
        return None
    if num_groups < 1 or channels % num_groups != 0:
        return None
    return batch, channels, positions, num_groups


def _allocate(
    x: Tensor, scale: Tensor, shift: Tensor, num_groups: int, dropout: float
) -> tuple[Tensor, Tensor, Tensor, Sizes]:
    sizes = _sizes(x, scale, shift, num_groups)
    if sizes is None:
        raise mismatch("group_norm", x, scale, shift)
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout ({dropout}) must be a rate, from 0 to 1")
    groups = (sizes[0], num_groups)
    return x.new_empty(x.shape), x.new_empty(groups), x.new_empty(groups), sizes


@group_norm.register_fake
def _results(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    seed: Tensor | None,
    num_groups: int,
    eps: float,
    silu: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _allocate(x, scale, shift, num_groups, dropout)[:3]


@Operator
def group_norm_gradient(
    dy: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    rstd: Tensor,
    seed: Tensor | None,
    eps: float,
    silu: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, scale and shift, from that of the result."""
    dy, x, scale, shift = dy.contiguous(), x.contiguous(), _rows(scale), _rows(shift)
    mean, rstd = mean.contiguous(), rstd.contiguous()
    *gradients, sizes = _allocate_gradients(dy, x, scale, shift, mean, rstd)
    layout = (scale.stride(0), shift.stride(0), int(silu))
    seed_value = 0 if seed is None else int(seed)
    call(
        "group_norm_gradient", dy, x, scale, shift, mean, rstd, *gradients, *sizes, *layout, float(dropout), seed_value
    )
    dx, d_scale, d_shift = gradients
    return dx, d_scale, d_shift


def _allocate_gradients(
    dy: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor, Sizes]:
    sizes = _sizes(x, scale, shift, mean.shape[1])
    if sizes is None or dy.shape != x.shape or not mean.shape == rstd.shape == (x.shape[0], mean.shape[1]):
        raise mismatch("group_norm_gradient", dy, x, scale, shift, mean, rstd)
    return x.new_empty(x.shape), scale.new_empty(scale.shape), shift.new_empty(shift.shape), sizes


@group_norm_gradient.register_fake
def _gradients(
    dy: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    rstd: Tensor,
    seed: Tensor | None,
    eps: float,
    silu: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _allocate_gradients(dy, x, scale, shift, mean, rstd)[:3]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, scale, shift, seed, _, *ctx.options = inputs
    _, mean, rstd = output
    ctx.save_for_backward(x, scale, shift, mean, rstd, seed)
    ctx.mark_non_differentiable(mean, rstd)


def _backward(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = group_norm_gradient(dy, *ctx.saved_tensors, *ctx.options)
    return *gradients, None, None, None, None, None


group_norm.register_autograd(_backward, setup_context=_keep)


def _keep_first(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, eps, silu, dropout = inputs
    ctx.options = eps, silu, dropout
    ctx.save_for_backward(*tensors)


def _second_backward(ctx: Any, *second: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, mean, _, seed = ctx.saved_tensors
    further = torch.is_grad_enabled()  # third derivatives are asked for: what the inputs are made of stays in the graph
    with torch.enable_grad():
        dy, x, scale, shift = (
            value.view_as(value) if further and value.requires_grad else value.detach().requires_grad_()
            for value in inputs
        )
        y = reference(x, scale, shift, seed, mean.shape[1], *ctx.options)
        first = torch.autograd.grad(y, (x, scale, shift), dy, create_graph=True)
        # Without SiLU nothing depends on the shift
        gradients = torch.autograd.grad(first, (dy, x, scale, shift), second, allow_unused=True, create_graph=further)
    return *gradients, None, None, None, None, None, None


group_norm_gradient.register_autograd(_second_backward, setup_context=_keep_first)
