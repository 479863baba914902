"""Multi-head attention as functions, with both ways in which networks order their heads."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion_labs import kernels

SplitHeads = Callable[[Tensor, int, int], tuple[Tensor, ...]]


def split_heads_interleaved(
    x: Float[Tensor, "b n c"], num_heads: int, num_parts: int
) -> tuple[Float[Tensor, "b h n d"], ...]:
    """Split channels ordered as ``[head, part, d]``: the "legacy" order of ADM.

    Nothing in a checkpoint tells this order from ``split_heads_stacked``: the shapes are equal, so
    the wrong one runs and gives wrong numbers. Of ADM's released checkpoints 64x64 is stacked, the
    others are interleaved.

    Args:
        x: a joint projection ``[b, n, num_heads * num_parts * d]``, for example of q, k and v.
        num_heads: the number of heads.
        num_parts: 3 for q, k, v; 2 for k, v.

    Returns:
        ``num_parts`` tensors ``[b, num_heads, n, d]``.
    """
    width = x.shape[2] // (num_heads * num_parts)
    return x.reshape(*x.shape[:2], num_heads, num_parts, width).permute(3, 0, 2, 1, 4).unbind(0)


def split_heads_stacked(
    x: Float[Tensor, "b n c"], num_heads: int, num_parts: int
) -> tuple[Float[Tensor, "b h n d"], ...]:
    """Split channels ordered as ``[part, head, d]``: the "new" order of ADM, and that of transformers.

    Args:
        x: a joint projection ``[b, n, num_parts * num_heads * d]``, for example of q, k and v.
        num_heads: the number of heads.
        num_parts: 3 for q, k, v; 2 for k, v.

    Returns:
        ``num_parts`` tensors ``[b, num_heads, n, d]``.
    """
    width = x.shape[2] // (num_heads * num_parts)
    return x.reshape(*x.shape[:2], num_parts, num_heads, width).permute(2, 0, 3, 1, 4).unbind(0)


def heads_of_channels(split_heads: SplitHeads, num_heads: int, num_parts: int, head_dim: int) -> Int[Tensor, " c"]:
    """The head of each channel of a joint projection, for a ``Partition``.

    Args:
        split_heads: how the channels are ordered.
        num_heads: the number of heads.
        num_parts: 3 for q, k, v; 2 for k, v.
        head_dim: width of a head.
    """
    channels = torch.arange(num_parts * num_heads * head_dim, dtype=torch.float64)
    heads = torch.empty(len(channels), dtype=torch.long)
    for part in split_heads(channels[None, None], num_heads, num_parts):
        heads[part.long()] = torch.arange(num_heads)[:, None, None]  # part is [1, h, 1, d]
    return heads


def merge_heads(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n c"]:
    """Join the heads' outputs as ``[head, d]`` channels, which both orders share: ``[b, n, h * d]``."""
    return x.transpose(1, 2).flatten(2)


def merge_attended(
    h: Float[Tensor, "b h n d"], v: Float[Tensor, "b h m d"], identity: Bool[Tensor, " b"] | None = None
) -> Float[Tensor, "b n c"]:
    """What the heads attended to, joined; their own values where the attention map is to be the identity.

    Args:
        h: of ``attention``.
        v: the values of the tokens themselves, as many as there are queries where ``identity`` is given.
        identity: for which samples each token sees itself alone (perturbed-attention guidance, arXiv 2403.17377);
            for none by default.
    """
    return merge_heads(h if identity is None else torch.where(identity[:, None, None, None], v, h))


def attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m d"],
    mask: Bool[Tensor, "b *q m"] | None = None,
) -> Float[Tensor, "b h n d"]:
    """``softmax(q k^T / sqrt(d)) v`` in each head (arXiv 1706.03762, Eq. 1).

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: which keys may be attended to, by all queries ``[b, m]`` or by each ``[b, n, m]``; all of them by
            default. A query without any attends to nothing: its result is 0.
    """
    if mask is not None:
        mask = mask.reshape(len(mask), 1, -1, mask.shape[-1])
    return kernels.attention(q, k, v, mask)
