"""Transformer blocks that are modulated by an embedding: with self-attention, and with cross-attention beside it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_labs.layers.attention import attention, merge_heads, split_heads_stacked
from diffusion_labs.layers.modulation import modulate
from diffusion_labs.layers.transformer import MultiHeadAttention

Heads = tuple[Tensor, Tensor, Tensor]


class HeadProjection(nn.Module):
    """One projection from tokens to q, k and v of each head, with or without a norm of q and k.

    Norms of q and k bound what the softmax sees; ``RMSNorm`` is that of Stable Diffusion 3 (arXiv
    2403.03206, section "Finetuning on High Resolutions").

    Args:
        dim: width of x.
        num_heads: the number of heads, each of width ``dim / num_heads``.
        bias: of the projection.
        qk_norm: makes the norms of q and of k from the width of a head; none by default. ``RotaryPositions`` go there.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(
        self, dim: int, num_heads: int, *, bias: bool = True, qk_norm: Callable[[int], nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads != 0:
            raise ValueError(f"num_heads ({num_heads}) must divide dim ({dim}); change one of them")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.norm_q = qk_norm(dim // num_heads)
        self.norm_k = qk_norm(dim // num_heads)

    def heads(self, x: Float[Tensor, "b n c"]) -> Heads:
        """q, k and v, each ``[b, num_heads, n, d]``."""
        q, k, v = split_heads_stacked(self.qkv(x), self.num_heads, 3)
        return self.norm_q(q), self.norm_k(k), v


class SelfAttention(HeadProjection):
    """``out(softmax(q k^T / sqrt(d)) v)``, in heads of width d, with one projection to ``[q, k, v]``.

    Attention Is All You Need, arXiv 1706.03762, section 3.2.2, as vision Transformers have it.

    Args:
        dim: width of x and of the output.
        num_heads: see ``HeadProjection``.
        bias: see ``HeadProjection``.
        qk_norm: see ``HeadProjection``.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(
        self, dim: int, num_heads: int, *, bias: bool = True, qk_norm: Callable[[int], nn.Module] = nn.Identity
    ) -> None:
        super().__init__(dim, num_heads, bias=bias, qk_norm=qk_norm)
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
        q, k, v = self.heads(x)
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

    With ``modulation`` for the modulation it is adaLN-Zero: shifts, scales and gates are linear in ``SiLU(embedding)``
    and start at zero, so the block starts as the identity (DiT, arXiv 2212.09748, section 3.2).

    Args:
        dim: width of x.
        num_heads: heads of the attention.
        modulation: from the embedding to ``[b, 6 * dim]``: shift, scale and gate of the attention, then those of the
            feed-forward network.
        eps: added to the variance by the norm of the attention.
        feed_forward_eps: added to it by the norm of the feed-forward network.
        qk_norm: see ``HeadProjection``.
        feed_forward: of each token; ``FeedForward`` by default.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        modulation: nn.Module,
        eps: float = 1e-6,
        feed_forward_eps: float = 1e-6,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
        feed_forward: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.modulation = modulation
        self.norm_attention = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.attention = SelfAttention(dim, num_heads, qk_norm=qk_norm)
        self.norm_feed_forward = nn.LayerNorm(dim, eps=feed_forward_eps, elementwise_affine=False)
        self.feed_forward = FeedForward(dim) if feed_forward is None else feed_forward

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        embedding: Float[Tensor, "b e"],
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Transform x; identity is that of ``SelfAttention``."""
        shift, scale, gate, *parts_ff = self.modulation(embedding).chunk(6, dim=1)
        x = x + gate[:, None] * self.attention(modulate(self.norm_attention(x), shift, scale), identity)
        return self.transform(x, *parts_ff)

    def transform(
        self,
        x: Float[Tensor, "b n c"],
        shift: Float[Tensor, "b c"],
        scale: Float[Tensor, "b c"],
        gate: Float[Tensor, "b c"],
    ) -> Float[Tensor, "b n c"]:
        """The part with the feed-forward network."""
        return x + gate[:, None] * self.feed_forward(modulate(self.norm_feed_forward(x), shift, scale))


class ModulatedCrossAttentionBlock(ModulatedTransformerBlock):
    """The block with attention to a context between its two parts, ``x + attention(x, context)``: no norm, no gate.

    PixArt-alpha, arXiv 2310.00426, section 2.3, as its code has it. The projections of that attention have biases.

    Args:
        dim: see ``ModulatedTransformerBlock``.
        num_heads: heads of both attentions.
        context_dim: width of the context.
        modulation: see ``ModulatedTransformerBlock``.
        eps: added to the variance by both norms.
    """

    def __init__(self, dim: int, num_heads: int, *, context_dim: int, modulation: nn.Module, eps: float = 1e-6) -> None:
        super().__init__(dim, num_heads, modulation=modulation, eps=eps, feed_forward_eps=eps)
        self.cross_attention = MultiHeadAttention(dim, num_heads, context_dim=context_dim, bias=True)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b n c"],
        embedding: Float[Tensor, "b e"],
        context: Float[Tensor, "b m f"],
        mask: Bool[Tensor, "b m"] | None = None,
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Transform x; mask and identity are those of ``MultiHeadAttention``, for the context and for x."""
        shift, scale, gate, *parts_ff = self.modulation(embedding).chunk(6, dim=1)
        x = x + gate[:, None] * self.attention(modulate(self.norm_attention(x), shift, scale), identity)
        x = x + self.cross_attention(x, context, mask)
        return self.transform(x, *parts_ff)
