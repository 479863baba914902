"""Attention without gradients: scaled products, softmax and their products with the values, block by block."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import register_flop_formula

from diffusion_labs.kernels.build import call
from diffusion_labs.kernels.choice import suited
from diffusion_labs.kernels.operator import Operator, Sizes, mismatch

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
    if forward_ad._current_level >= 0:  # PyTorch's own faster ones have no forward-mode derivatives
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, mask)


def fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel is written for these sizes, and faster, and nobody asks for a gradient.

    In a graph the number of samples does not matter: it may change from call to call, and the graph is to stay.
    """
    differentiated = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if differentiated:
        return False
    sizes = _sizes(q, k, v)
    return sizes is not None and (torch.compiler.is_compiling() or math.prod(sizes[:-1]) >= LEAST_SIZE)


def _sizes(q: Tensor, k: Tensor, v: Tensor) -> Sizes | None:
    """Samples, heads, queries, keys and channels, if the tensors agree, none broadcast, and the kernel takes them."""
    if not q.dim() == k.dim() == 4:
        return None
    b, h, n, d = q.shape
    keys = k.shape
    m = keys[2]
    if not keys == v.shape == (b, h, m, d) or m == 0 or n % QUERIES != 0 or m % PANEL != 0 or d % PANEL != 0:
        return None
    return b, h, n, m, d


@Operator
def attention_without_gradient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See ``attention``, with the result as ``[b, n, h, d]``."""
    q, k, v = (value if value.stride(-1) == 1 else value.contiguous() for value in (q, k, v))
    y, sizes = _allocate(q, k, v)
    call("attention", q, k, v, y, *sizes, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    return y


def _allocate(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Sizes]:
    sizes = _sizes(q, k, v)
    if sizes is None:
        raise mismatch("attention_without_gradient", q, k, v)
    b, h, n, _, d = sizes
    return q.new_empty(b, n, h, d), sizes


@attention_without_gradient.register_fake
def _output(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _allocate(q, k, v)[0]


@register_flop_formula(torch.ops.diffusion_labs.attention_without_gradient)
def _flops(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], **_: object) -> int:
    b, h, n, d = q
    return 2 * b * h * n * k[2] * 2 * d
