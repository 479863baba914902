"""The Transformer block of DiT: self-attention and feed-forward, modulated by an embedding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_labs.layers.attention import attention, merge_heads, split_heads_stacked
from diffusion_labs.layers.convolution import zero_init


def modulate(
    x: Float[Tensor, "b n c"], shift: Float[Tensor, "b c"], scale: Float[Tensor, "b c"]
) -> Float[Tensor, "b n c"]:
    """``x * (1 + scale) + shift``, the same for all tokens of a sample."""
    return x * (1 + scale[:, None]) + shift[:, None]


def modulation(embed_dim: int, dim: int, parts: int) -> nn.Sequential:
    """From an embedding ``[b, embed_dim]`` to shifts, scales or gates, ``[b, parts * dim]``; all start at zero."""
    return nn.Sequential(nn.SiLU(), zero_init(nn.Linear(embed_dim, parts * dim)))


class SelfAttention(nn.Module):
    """``out(softmax(q k^T / sqrt(d)) v)``, in heads of width d, with one projection to ``[q, k, v]`` with bias.

    Attention Is All You Need, arXiv 1706.03762, section 3.2.2, as vision Transformers have it.

    Args:
        dim: width of x and of the output.
        num_heads: the number of heads, each of width ``dim / num_heads``.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads != 0:
            raise ValueError(f"num_heads ({num_heads}) must divide dim ({dim}); change one of them")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        identity: Bool[Tensor, " b"] | None = None,
        mask: Bool[Tensor, "b *q m"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Attend.

        Args:
            x: the tokens.
            identity: for which samples the attention map is the identity: ``out(v)``.
            mask: which tokens may be attended to; see ``attention``.
        """
        q, k, v = split_heads_stacked(self.qkv(x), self.num_heads, 3)
        h = attention(q, k, v, mask)
        if identity is not None:
            h = torch.where(identity[:, None, None, None], v, h)
        return self.out(merge_heads(h))


def gelu_tanh(x: Tensor) -> Tensor:
    """The approximation of GELU by tanh (arXiv 1606.08415, section 2)."""
    return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """``linear_out(activation(linear_in(x)))``.

    Args:
        dim: width of input and output.
        mult: the width between, in units of ``dim``.
        activation: between the two layers.
    """

    def __init__(self, dim: int, *, mult: int = 4, activation: Callable[[Tensor], Tensor] = gelu_tanh) -> None:
        super().__init__()
        self.activation = activation
        self.linear_in = nn.Linear(dim, mult * dim)
        self.linear_out = nn.Linear(mult * dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.linear_out(self.activation(self.linear_in(x)))


class ModulatedTransformerBlock(nn.Module):
    """Two residual parts, attention and feed-forward: ``x + gate * f(norm(x) * (1 + scale) + shift)``.

    Shifts, scales and gates are linear in ``SiLU(embedding)``. They start at zero, so the block starts as the identity:
    adaLN-Zero (DiT, arXiv 2212.09748, section 3.2).

    Args:
        dim: width of x.
        num_heads: heads of the attention.
        embed_dim: width of the embedding.
        eps: added to the variance by the norm of the attention.
        feed_forward_eps: added to it by the norm of the feed-forward network.
    """

    def __init__(
        self, dim: int, num_heads: int, *, embed_dim: int, eps: float = 1e-6, feed_forward_eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.modulation = modulation(embed_dim, dim, 6)
        self.norm_attention = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.attention = SelfAttention(dim, num_heads)
        self.norm_feed_forward = nn.LayerNorm(dim, eps=feed_forward_eps, elementwise_affine=False)
        self.feed_forward = FeedForward(dim)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        embedding: Float[Tensor, "b e"],
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Transform x; identity is that of ``SelfAttention``."""
        shift, scale, gate, shift_ff, scale_ff, gate_ff = self.modulation(embedding).chunk(6, dim=1)
        x = x + gate[:, None] * self.attention(modulate(self.norm_attention(x), shift, scale), identity)
        return x + gate_ff[:, None] * self.feed_forward(modulate(self.norm_feed_forward(x), shift_ff, scale_ff))
