"""Transformer blocks without modulation: that of encoders, and that of latent diffusion with cross-attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_labs.keeping import kept
from diffusion_labs.layers.attention import attention, heads_of_channels, merge_attended, split_heads_stacked
from diffusion_labs.partition import Partition

Heads = tuple[Tensor, Tensor, Tensor]


class MultiHeadAttention(nn.Module):
    """Attention of x to a context, or to itself: ``out(softmax(q k^T / sqrt(d)) v)``, in heads of width d.

    ``q`` is linear in x, ``k`` and ``v`` in the context, without bias unless asked for; ``out`` has one. Attention Is
    All You Need, arXiv 1706.03762, section 3.2.2.

    Args:
        dim: width of x and of the output.
        num_heads: the number of heads.
        context_dim: width of the context; ``dim`` by default, as self-attention needs.
        head_dim: width of a head; ``dim / num_heads`` by default.
        bias: of the projections to q, k and v.

    Raises:
        ValueError: if the heads do not divide the width, and have none of their own.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        context_dim: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if num_heads < 1 or (head_dim is None and dim % num_heads != 0):
            raise ValueError(f"num_heads ({num_heads}) must divide channels ({dim}); change one of them")
        context_dim = dim if context_dim is None else context_dim
        inner_dim = dim if head_dim is None else num_heads * head_dim
        self.num_heads = num_heads
        self.query = nn.Linear(dim, inner_dim, bias=bias)
        self.key = nn.Linear(context_dim, inner_dim, bias=bias)
        self.value = nn.Linear(context_dim, inner_dim, bias=bias)
        self.out = nn.Linear(inner_dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        context: Float[Tensor, "b m e"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Attend.

        Args:
            x: where from.
            context: where to; x itself by default.
            mask: which tokens of the context are valid; all by default. A sample without any attends to nothing:
                ``out(0)``.
            identity: in self-attention, for which samples the attention map is the identity: ``out(v)``.
        """
        (q,) = split_heads_stacked(self.query(x), self.num_heads, 1)
        k, v = self.keys_and_values(x) if context is None else kept(self.keys_and_values, context)
        return self.out(merge_attended(attention(q, k, v, mask), v, identity))

    def keys_and_values(self, context: Float[Tensor, "b m e"]) -> tuple[Tensor, Tensor]:
        """k and v, each ``[b, num_heads, m, d]``."""
        (k,) = split_heads_stacked(self.key(context), self.num_heads, 1)
        (v,) = split_heads_stacked(self.value(context), self.num_heads, 1)
        return k, v

    def partition(self) -> Partition:
        """By heads."""
        heads = heads_of_channels(split_heads_stacked, self.num_heads, 1, self.query.out_features // self.num_heads)
        return Partition(
            self.num_heads, {"query": heads, "key": heads, "value": heads}, {"out": heads}, counts=("num_heads",)
        )


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

    def partition(self) -> Partition:
        """By heads; what they attend to is summed elsewhere."""
        heads = heads_of_channels(split_heads_stacked, self.num_heads, 3, self.qkv.in_features // self.num_heads)
        return Partition(self.num_heads, {"qkv": heads}, {}, within=("norm_q", "norm_k"), counts=("num_heads",))


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
        return self.out(merge_attended(attention(q, k, v, mask), v, identity))

    def partition(self) -> Partition:
        """By heads."""
        heads = heads_of_channels(split_heads_stacked, self.num_heads, 1, self.out.in_features // self.num_heads)
        return super().partition()._replace(leave={"out": heads})


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

    def partition(self) -> Partition:
        """By the channels between the two layers."""
        channels = torch.arange(self.linear_out.in_features)
        return Partition(len(channels), {"linear_in": channels}, {"linear_out": channels})


class GatedFeedForward(nn.Module):
    """``linear_out(a * activation(g))`` with ``[a, g] = linear_in(x)`` (arXiv 2002.05202, section 2).

    Args:
        dim: width of input and output.
        mult: the width of a and of g, in units of ``dim``, rounded down.
        activation: GELU is GEGLU, and ``F.silu`` is SwiGLU.
    """

    def __init__(self, dim: int, *, mult: float = 4, activation: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        width = int(mult * dim)
        self.activation = activation
        self.linear_in = nn.Linear(dim, 2 * width)
        self.linear_out = nn.Linear(width, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        a, g = self.linear_in(x).chunk(2, dim=-1)
        return self.linear_out(a * self.activation(g))

    def partition(self) -> Partition:
        """By the channels of a and of g."""
        channels = torch.arange(self.linear_out.in_features)
        return Partition(len(channels), {"linear_in": channels.repeat(2)}, {"linear_out": channels})


class EncoderBlock(nn.Module):
    """``h = x + attention(norm(x))``, ``h + feed_forward(norm(h))``.

    Args:
        width: of x.
        attention: of x to itself, called with a mask.
        feed_forward: of each token.
    """

    def __init__(self, width: int, attention: nn.Module, feed_forward: nn.Module) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = attention
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = feed_forward

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b *q m"] | None = None,
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Transform x.

        Args:
            x: the tokens.
            mask: true for the tokens that may be attended to, see ``attention``.
            identity: for which samples the attention map is the identity.
        """
        x = x + self.attention(self.norm_attention(x), mask=mask, identity=identity)
        return x + self.feed_forward(self.norm_feed_forward(x))


class SkipEncoderBlock(EncoderBlock):
    """The block of ``merge([x, skip])``, where skip is from a shallow block (U-ViT, arXiv 2209.12152, section 3).

    Args:
        width: of x and of skip.
        attention: see ``EncoderBlock``.
        feed_forward: see ``EncoderBlock``.
    """

    def __init__(self, width: int, attention: nn.Module, feed_forward: nn.Module) -> None:
        super().__init__(width, attention, feed_forward)
        self.merge = nn.Linear(2 * width, width)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b n d"],
        skip: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b *q m"] | None = None,
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Transform x; mask and identity are those of ``EncoderBlock``."""
        return super().forward(self.merge(torch.cat([x, skip], dim=2)), mask, identity)


class TransformerBlock(nn.Module):
    """Three residual parts, each of ``LayerNorm(x)``: attention to x, attention to the context, feed-forward.

    The order is that of the released code of latent diffusion. The appendix of the paper (arXiv 2112.10752) lists the
    feed-forward network between the two attentions; no released network has it there.

    Args:
        dim: width of x.
        num_heads: heads of both attentions.
        context_dim: width of the context.
        eps: added to the variance by the norms.
    """

    def __init__(self, dim: int, num_heads: int, *, context_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(dim, eps=eps)
        self.self_attention = MultiHeadAttention(dim, num_heads)
        self.norm_cross = nn.LayerNorm(dim, eps=eps)
        self.cross_attention = MultiHeadAttention(dim, num_heads, context_dim=context_dim)
        self.norm_feed_forward = nn.LayerNorm(dim, eps=eps)
        self.feed_forward = GatedFeedForward(dim)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        context: Float[Tensor, "b m e"],
        mask: Bool[Tensor, "b m"] | None = None,
        identity: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Transform x; mask and identity are those of ``MultiHeadAttention``, for the context and for x."""
        x = x + self.self_attention(self.norm_self(x), identity=identity)
        x = x + self.cross_attention(self.norm_cross(x), context, mask)
        return x + self.feed_forward(self.norm_feed_forward(x))
