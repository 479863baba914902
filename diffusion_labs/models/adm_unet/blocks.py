"""The blocks of the U-Net, all called as ``block(x, embedding, context)``."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs.checkpointing import Checkpointing, call_block
from diffusion_labs.keeping import kept, stepped
from diffusion_labs.layers import (
    Context,
    GroupNorm,
    GroupNormSiLU,
    SplitHeads,
    attention,
    conv,
    heads_of_channels,
    merge_attended,
    over_positions,
    split_heads_interleaved,
    split_heads_stacked,
    zero_init,
)
from diffusion_labs.partition import Partition


class NumberedAttention(nn.Module):
    """A block with self-attention; the network numbers these, from the first to the last.

    Attributes:
        index: the number of its self-attention, or of the first one if it has several.
    """

    index: int = 0

    def attention_names(self, name: str) -> list[str]:
        """The names of its self-attentions, given its own name: here one, of the same name."""
        return [name]

    def identity(self, context: Context | None, offset: int = 0) -> Tensor | None:
        """For whom its self-attention of that offset is the identity, bool ``[b]``; ``None`` if for nobody."""
        if context is None or context.identity is None:
            return None
        return context.identity[:, self.index + offset]


class AdaptiveGroupNorm(nn.Module):
    """``dropout(SiLU(norm(x) * (1 + scale) + shift))``, with scale and shift linear in ``SiLU(embedding)``.

    ADM, arXiv 2105.05233, section 3.1, Eq. 3 ("AdaGN").

    Args:
        channels: channels of x.
        embed_dim: width of the embedding.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
        dropout: rate of dropout.
    """

    def __init__(
        self, channels: int, embed_dim: int, *, num_groups: int = 32, eps: float = 1e-5, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = GroupNormSiLU(channels, num_groups=num_groups, eps=eps, dropout=dropout)
        self.projection = nn.Linear(embed_dim, 2 * channels)

    def forward(self, x: Float[Tensor, "b c *d"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b c *d"]:
        scale, shift = stepped(self.project, embedding).chunk(2, dim=1)
        return self.norm(x, scale, shift)

    def project(self, embedding: Float[Tensor, "*b e"]) -> Float[Tensor, "*b k"]:
        """Scale and shift, ``[..., 2 * channels]``."""
        return self.projection(F.silu(embedding))


class ShiftedGroupNorm(nn.Module):
    """``dropout(SiLU(norm(x + shift)))``, with shift linear in ``SiLU(embedding)``: the additive form of DDPM and LDM.

    Args:
        channels: channels of x.
        embed_dim: width of the embedding.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
        dropout: rate of dropout.
    """

    def __init__(
        self, channels: int, embed_dim: int, *, num_groups: int = 32, eps: float = 1e-5, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = GroupNormSiLU(channels, num_groups=num_groups, eps=eps, dropout=dropout)
        self.projection = nn.Linear(embed_dim, channels)

    def forward(self, x: Float[Tensor, "b c *d"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b c *d"]:
        return self.norm(x + over_positions(stepped(self.project, embedding), x))

    def project(self, embedding: Float[Tensor, "*b e"]) -> Float[Tensor, "*b c"]:
        """The shift, ``[..., channels]``."""
        return self.projection(F.silu(embedding))


class ResBlock(nn.Module):
    """Residual block: ``skip(r(x)) + conv_out(norm_out(conv_in(r(norm_in(x))), embedding))``.

    Both norms end with SiLU, the second with dropout too. ``r`` is the resampling, between the norm and the
    convolution as in BigGAN. The last convolution starts at zero, so the block starts as ``skip(r(x))``. ADM,
    arXiv 2105.05233, section 3.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output; a 1x1 convolution on the skip path where they differ.
        embed_dim: width of the time embedding.
        dims: number of spatial dimensions.
        dropout: rate of dropout before the last convolution.
        embedding_norm: how the embedding enters, ``AdaptiveGroupNorm`` or ``ShiftedGroupNorm``.
        resample: module without parameters that changes the resolution of both paths.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embed_dim: int,
        dims: int = 2,
        dropout: float = 0.0,
        embedding_norm: Callable[..., nn.Module] = AdaptiveGroupNorm,
        resample: nn.Module | None = None,
        num_groups: int = 32,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_in = GroupNormSiLU(in_channels, num_groups=num_groups, eps=eps)
        self.resample = nn.Identity() if resample is None else resample
        self.conv_in = conv(dims, in_channels, out_channels, 3, padding=1)
        self.norm_out = embedding_norm(out_channels, embed_dim, num_groups=num_groups, eps=eps, dropout=dropout)
        self.conv_out = zero_init(conv(dims, out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else conv(dims, in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c *d"], embedding: Float[Tensor, "b e"], context: Context | None) -> Tensor:
        h = self.conv_in(self.resample(self.norm_in(x)))
        h = self.conv_out(self.norm_out(h, embedding))
        return self.skip(self.resample(x)) + h


class AttentionBlock(NumberedAttention):
    """Residual self-attention over the positions: ``x + proj_out(attention(q, k, v))``.

    ``q, k, v`` are linear in ``norm(x)``. The output projection starts at zero, so the block starts
    as the identity. Where ``context.identity`` says so, the attention map is the identity, and ``attention(q, k, v)``
    is v: each position sees itself alone (perturbed-attention guidance, arXiv 2403.17377).

    Args:
        channels: channels of x.
        num_heads: the number of heads.
        split_heads: how the channels of q, k and v are ordered, ``split_heads_interleaved``
            ("legacy") or ``split_heads_stacked`` ("new").
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.

    Raises:
        ValueError: if the heads do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        split_heads: SplitHeads = split_heads_interleaved,
        num_groups: int = 32,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads != 0:
            raise ValueError(f"num_heads ({num_heads}) must divide channels ({channels}); change one of them")
        self.num_heads = num_heads
        self.split_heads = split_heads
        self.norm = GroupNorm(channels, num_groups=num_groups, eps=eps)
        self.qkv = conv(1, channels, 3 * channels, 1)
        self.proj_out = zero_init(conv(1, channels, channels, 1))

    def forward(
        self, x: Float[Tensor, "b c *d"], embedding: Float[Tensor, "b e"], context: Context | None
    ) -> Float[Tensor, "b c *d"]:
        # In this layout, or torch has no fused attention for it
        qkv = self.qkv(self.norm(x).flatten(2), to_tokens=True)
        q, k, v = self.split_heads(qkv, self.num_heads, 3)
        h = attention(q, *self.add_context(k, v, context))
        h = merge_attended(h, v, self.identity(context))
        return x + self.proj_out(h.mT).view_as(x)

    def add_context(self, k: Tensor, v: Tensor, context: Context | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The keys, the values and the mask to attend to: here those of the image alone."""
        return k, v, None

    def partition(self) -> Partition:
        """By heads."""
        out = self._heads_of_channels(split_heads_stacked, 1)
        qkv = self._heads_of_channels(self.split_heads, 3)
        return Partition(self.num_heads, {"qkv": qkv}, {"proj_out": out}, counts=("num_heads",))

    def _heads_of_channels(self, split_heads: SplitHeads, num_parts: int) -> Tensor:
        return heads_of_channels(split_heads, self.num_heads, num_parts, self.norm.num_channels // self.num_heads)


class ContextAttentionBlock(AttentionBlock):
    """Attention of the positions to ``[context; positions]``, in one softmax.

    The context gets its own keys and values, concatenated before those of the image. GLIDE,
    arXiv 2112.10741, section 2.1, and DALL-E 2, arXiv 2204.06125, section 2.1.

    Args:
        channels: channels of x.
        num_heads: the number of heads.
        context_dim: width of the context tokens.
        split_heads: see ``AttentionBlock``; the context's keys and values have the same order.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        context_dim: int,
        split_heads: SplitHeads = split_heads_interleaved,
        num_groups: int = 32,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, num_heads, split_heads=split_heads, num_groups=num_groups, eps=eps)
        self.context_kv = conv(1, context_dim, 2 * channels, 1)

    def add_context(self, k: Tensor, v: Tensor, context: Context | None) -> tuple[Tensor, Tensor, Tensor | None]:
        assert context is not None, "the network's embedding gives a context whenever it has token conditions"
        tokens, mask, _ = context
        context_k, context_v = kept(self.keys_and_values, tokens)
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(k.shape[0], k.shape[2])], dim=1)
        return torch.cat([context_k, k], dim=2), torch.cat([context_v, v], dim=2), mask

    def keys_and_values(self, tokens: Float[Tensor, "b m e"]) -> tuple[Tensor, ...]:
        """Those of the context, each ``[b, num_heads, m, d]``."""
        return self.split_heads(self.context_kv(tokens.mT, to_tokens=True), self.num_heads, 2)

    def partition(self) -> Partition:
        """By heads, with those of the context."""
        partition = super().partition()
        context_kv = self._heads_of_channels(self.split_heads, 2)
        return partition._replace(enter={**partition.enter, "context_kv": context_kv})


class ResampleBlock(nn.Module):
    """A change of resolution that looks at neither the time nor the context.

    Args:
        resample: for example ``Downsample``, ``Upsample`` or ``average_pool``.
    """

    def __init__(self, resample: nn.Module) -> None:
        super().__init__()
        self.resample = resample

    def forward(self, x: Float[Tensor, "b c *d"], embedding: Tensor, context: Context | None) -> Tensor:
        return self.resample(x)


class BlockSequence(nn.Sequential):
    """Blocks called one after the other; itself called as a block.

    Args:
        blocks: the blocks.
        checkpointing: in train mode, recompute each block in the backward pass, see ``call_block``.
    """

    def __init__(self, *blocks: nn.Module, checkpointing: bool = False) -> None:
        super().__init__(*blocks)
        self.checkpointing: Checkpointing = checkpointing

    def forward(self, x: Tensor, embedding: Tensor, context: Context | None) -> Tensor:  # type: ignore[override]
        for block in self:
            x = call_block(block, x, embedding, context, recompute=self.training and self.checkpointing)
        return x
