"""The Transformer block of MM-DiT: two sequences of tokens, each with weights of its own, in one attention."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_labs.keeping import stepped
from diffusion_labs.layers.attention import attention, merge_heads
from diffusion_labs.layers.modulation import modulate, modulation
from diffusion_labs.layers.transformer import FeedForward, HeadProjection, Heads, SelfAttention


class AttendedStream(nn.Module):
    """Tokens that others attend to, and that end there: what is theirs of the last block.

    q, k and v of ``norm(x) * (1 + scale) + shift``. The queries are computed although nothing comes of them, so that
    every parameter has a gradient, as DistributedDataParallel needs.

    Args:
        dim: width of the tokens.
        num_heads: heads of the attention.
        embed_dim: width of the embedding.
        eps: added to the variance by the norms.
        qk_norm: see ``HeadProjection``.
    """

    attention: HeadProjection
    projection: type[HeadProjection] = HeadProjection
    num_modulations = 2

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        embed_dim: int,
        eps: float = 1e-6,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        self.modulation = modulation(embed_dim, dim, self.num_modulations)
        self.norm_attention = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.attention = self.projection(dim, num_heads, qk_norm=qk_norm)

    def modulations(self, embedding: Float[Tensor, "b e"]) -> Sequence[Tensor]:
        """Shifts, scales and gates."""
        return stepped(self.modulation, embedding).chunk(self.num_modulations, dim=1)

    def begin(self, x: Float[Tensor, "b n c"], modulations: Sequence[Tensor]) -> Heads:
        """q, k and v of each head."""
        shift, scale, *_ = modulations
        return self.attention.heads(modulate(self.norm_attention(x), shift, scale))

    def end(
        self,
        x: Float[Tensor, "b n c"],
        h: Float[Tensor, "b h n d"],
        modulations: Sequence[Tensor],
        identity: Bool[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n c"]:
        """The tokens as they are."""
        return x.clone()  # FSDP2 warns of outputs that are views


class Stream(AttendedStream):
    """Tokens that attend: ``x + gate * out(h)``, where h is what their heads attended to, then the feed-forward part.

    Both as in ``ModulatedTransformerBlock``, with its modulation of adaLN-Zero.

    Args:
        dim: see ``AttendedStream``.
        num_heads: see ``AttendedStream``.
        embed_dim: see ``AttendedStream``.
        eps: see ``AttendedStream``.
        qk_norm: see ``HeadProjection``.
    """

    attention: SelfAttention
    projection = SelfAttention
    num_modulations = 6

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        embed_dim: int,
        eps: float = 1e-6,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__(dim, num_heads, embed_dim=embed_dim, eps=eps, qk_norm=qk_norm)
        self.norm_feed_forward = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.feed_forward = FeedForward(dim)

    def end(
        self,
        x: Float[Tensor, "b n c"],
        h: Float[Tensor, "b h n d"],
        modulations: Sequence[Tensor],
        identity: Bool[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n c"]:
        """Transform x with what its heads attended to."""
        _, _, gate, shift_ff, scale_ff, gate_ff = modulations
        x = x + gate[:, None] * self.attention.out(merge_heads(h))
        return x + gate_ff[:, None] * self.feed_forward(modulate(self.norm_feed_forward(x), shift_ff, scale_ff))


class DualStream(Stream):
    """A stream with a second attention, of its tokens to themselves alone, beside the joint one.

    Both attentions have the same norm, with modulations of their own. The first blocks of Stable Diffusion 3.5 medium,
    whose network is called MM-DiT-X.

    Args:
        dim: see ``AttendedStream``.
        num_heads: heads of each attention.
        embed_dim: see ``AttendedStream``.
        eps: see ``AttendedStream``.
        qk_norm: see ``HeadProjection``.
    """

    num_modulations = 9

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        embed_dim: int,
        eps: float = 1e-6,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__(dim, num_heads, embed_dim=embed_dim, eps=eps, qk_norm=qk_norm)
        self.self_attention = SelfAttention(dim, num_heads, qk_norm=qk_norm)

    def end(
        self,
        x: Float[Tensor, "b n c"],
        h: Float[Tensor, "b h n d"],
        modulations: Sequence[Tensor],
        identity: Bool[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n c"]:
        """Transform x with what its heads attended to; identity is that of ``SelfAttention``."""
        *joint, shift, scale, gate = modulations
        own = self.self_attention(modulate(self.norm_attention(x), shift, scale), identity)
        return super().end(x + gate[:, None] * own, h, joint, identity)


class JointTransformerBlock(nn.Module):
    """Two streams, of which each attends to the tokens of both: MM-DiT (arXiv 2403.03206, section 4).

    Args:
        image: the stream of the image.
        context: that of the text; an ``AttendedStream`` in the last block.
    """

    def __init__(self, image: Stream, context: AttendedStream) -> None:
        super().__init__()
        self.image = image
        self.context = context

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        context: Float[Tensor, "b m c"],
        embedding: Float[Tensor, "b e"],
        mask: Bool[Tensor, "b m"] | None = None,
        identity: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b m c"]]:
        """Transform both.

        Args:
            x: the tokens of the image.
            context: those of the text.
            embedding: modulates both streams.
            mask: which tokens of the text may be attended to; all by default.
            identity: in which samples no token of the image attends to another one of it, but to itself and the text.
        """
        streams = [(self.image, x), (self.context, context)]
        modulations = [stream.modulations(embedding) for stream, _ in streams]
        parts = [stream.begin(tokens, own) for (stream, tokens), own in zip(streams, modulations, strict=True)]

        q, k, v = (torch.cat(both, dim=2) for both in zip(*parts, strict=True))
        h = attention(q, k, v, joint_mask(x, context, mask, identity)).split([x.shape[1], context.shape[1]], dim=2)

        ended = [
            stream.end(tokens, attended, own, identity)
            for (stream, tokens), attended, own in zip(streams, h, modulations, strict=True)
        ]
        return ended[0], ended[1]


def joint_mask(
    x: Tensor, context: Tensor, mask: Tensor | None, identity: Tensor | None
) -> Bool[Tensor, "b *q m"] | None:
    """Who may attend to whom in a joint attention; see ``JointTransformerBlock``."""
    if mask is None and identity is None:
        return None
    images, texts = x.new_ones(x.shape[:2], dtype=torch.bool), context.new_ones(context.shape[:2], dtype=torch.bool)
    keys = torch.cat([images, texts if mask is None else mask], dim=1)
    if identity is None:
        return keys
    image = torch.cat([images, ~texts], dim=1)
    other = ~torch.eye(image.shape[1], dtype=torch.bool, device=x.device)
    forbidden = identity[:, None, None] & image[:, :, None] & image[:, None, :] & other
    return keys[:, None, :] & ~forbidden
