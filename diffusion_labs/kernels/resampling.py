"""Halves and doubles of the sides of images; each is the transpose of the other."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator, mismatch

LEAST_SIZE = 2**14  # numbers of the smaller image, with fewer of which calling the kernel costs what is saved


def average_pool(x: Tensor) -> Tensor:
    """The mean of each 2 x 2 pixels of ``[b, c, h, w]``, by a faster kernel where there is one."""
    if _fits(x, 4) and x.shape[2] % 2 == x.shape[3] % 2 == 0:
        return halve(x, 0.25)
    return F.avg_pool2d(x, 2)


def nearest_upsample(x: Tensor) -> Tensor:
    """Each pixel of ``[b, c, h, w]`` 2 x 2 times, by a faster kernel where there is one."""
    if _fits(x, 1):
        return repeat(x, 1.0)
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _fits(x: Tensor, share: int) -> bool:
    # In a graph the number of samples may change from call to call, and the graph is to stay
    large = torch.compiler.is_compiling() or x.numel() >= share * LEAST_SIZE
    return x.dim() == 4 and large and suited(x)


@Operator
def halve(x: Tensor, factor: float) -> Tensor:
    """The sum of each 2 x 2 pixels of ``[b, c, h, w]``, times a factor."""
    x = x.contiguous()
    y = _half(x, factor)
    call("halve", x, y, math.prod(x.shape[:2]), *x.shape[2:], float(factor))
    return y


@halve.register_fake
def _half(x: Tensor, factor: float) -> Tensor:
    if x.dim() != 4 or x.shape[2] % 2 != 0 or x.shape[3] % 2 != 0:
        raise mismatch("halve", x)
    b, c, h, w = x.shape
    return x.new_empty(b, c, h // 2, w // 2)


@Operator
def repeat(x: Tensor, factor: float) -> Tensor:
    """Each pixel of ``[b, c, h, w]`` 2 x 2 times, times a factor."""
    x = x.contiguous()
    y = _double(x, factor)
    call("repeat", x, y, math.prod(x.shape[:2]), *x.shape[2:], float(factor))
    return y


@repeat.register_fake
def _double(x: Tensor, factor: float) -> Tensor:
    if x.dim() != 4:
        raise mismatch("repeat", x)
    b, c, h, w = x.shape
    return x.new_empty(b, c, 2 * h, 2 * w)


def _keep(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
    ctx.factor = inputs[1]


halve.register_autograd(lambda ctx, dy: (repeat(dy, ctx.factor), None), setup_context=_keep)
repeat.register_autograd(lambda ctx, dy: (halve(dy, ctx.factor), None), setup_context=_keep)
