"""Transformer blocks that are modulated by an embedding: with self-attention, and with cross-attention beside it."""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_labs.keeping import stepped
from diffusion_labs.layers.modulation import modulate
from diffusion_labs.layers.transformer import FeedForward, MultiHeadAttention, SelfAttention


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
        shift, scale, gate, *parts_ff = stepped(self.modulation, embedding).chunk(6, dim=1)
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
        shift, scale, gate, *parts_ff = stepped(self.modulation, embedding).chunk(6, dim=1)
        x = x + gate[:, None] * self.attention(modulate(self.norm_attention(x), shift, scale), identity)
        x = x + self.cross_attention(x, context, mask)
        return self.transform(x, *parts_ff)
