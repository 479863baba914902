"""Attention without gradients: scaled products, softmax and their products with the values, block by block."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator

PANEL = 16  # keys, and channels of a head: a multiple of them is computed at once
QUERIES = 4  # likewise
LEAST_SIZE = 2**12  # scores, with fewer of which calling the kernel costs what is saved


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v``, by a faster kernel where there is one: in sampling, without a mask.

    Args:
        q: queries ``[b, h, n, d]``.
        k: keys ``[b, h, m, d]``.
        v: values ``[b, h, m, d]``.
        mask: as of ``F.scaled_dot_product_attention``.
    """
    if mask is None and fits(q, k, v) and suited(q, k, v):
        return attention_without_gradient(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, mask)


def fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel is written for these sizes, and faster, and nobody asks for a gradient.

    In a graph the number of samples does not matter: it may change from call to call, and the graph is to stay.
    """
    differentiated = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return (
        not differentiated
        and q.shape[-1] == v.shape[-1]
        and q.shape[2] % QUERIES == k.shape[2] % PANEL == q.shape[-1] % PANEL == 0
        and k.shape[2] > 0
        and (torch.compiler.is_compiling() or q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] >= LEAST_SIZE)
    )


@Operator
def attention_without_gradient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See ``attention``, with the result as ``[b, n, h, d]``."""
    q, k, v = (value if value.stride(-1) == 1 else value.contiguous() for value in (q, k, v))
    y = _output(q, k, v)
    sizes = (*q.shape[:3], k.shape[2], q.shape[3])
    call("attention", q, k, v, y, *sizes, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    return y


@attention_without_gradient.register_fake
def _output(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, n, d = q.shape
    return q.new_empty(b, n, h, d)


@register_flop_formula(torch.ops.diffusion_labs.attention_without_gradient)
def _flops(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], **_: object) -> int:
    b, h, n, d = q
    return 2 * b * h * n * k[2] * 2 * d
