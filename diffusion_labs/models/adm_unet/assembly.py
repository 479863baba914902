"""Assembles the U-Net that ADM and latent diffusion share, around their attention blocks and conditions."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypedDict

import torch
from torch import nn

from diffusion_labs.layers import ConditionEmbedding, Downsample, Upsample, average_pool, conv, nearest_upsample
from diffusion_labs.models.adm_unet.blocks import (
    AdaptiveGroupNorm,
    BlockSequence,
    ResampleBlock,
    ResBlock,
    ShiftedGroupNorm,
)
from diffusion_labs.models.adm_unet.network import ADMUNet, Head, LearnedVarianceHead

MakeAttention = Callable[[int, int], Sequence[nn.Module]]
"""From a level and its width to its attention block, in a list; an empty one where the level has none."""


class TrunkOptions(TypedDict, total=False):
    """The options of ``assemble`` with the same meaning and defaults in all builders; see ``adm_unet``."""

    num_resamples: int | None
    conv_resample: bool
    downsample_padding: tuple[int, int]
    learned_variance: bool
    dropout: float
    dims: int
    num_groups: int
    norm_eps: float
    checkpointing: bool
    dtype: torch.dtype | None


def widths_of_levels(model_channels: int, channel_mult: Sequence[int | float]) -> list[int]:
    """The channels of each level.

    Raises:
        ValueError: if there is no level, or one without channels.
    """
    channels = [int(model_channels * mult) for mult in channel_mult]
    if not channels or min(channels) < 1:
        raise ValueError(
            f"channel_mult ({tuple(channel_mult)}) must hold at least one number, and each times "
            f"model_channels ({model_channels}) at least one channel"
        )
    return channels


def check_attention(attention_levels: Collection[int], num_levels: int, middle_attention: bool, tokens: object) -> None:
    """Raise a ``ValueError`` for levels that do not exist, or tokens that nothing attends to."""
    if any(not 0 <= level < num_levels for level in attention_levels):
        raise ValueError(
            f"attention_levels ({tuple(attention_levels)}) must be between 0 and {num_levels - 1}, as "
            f"channel_mult has {num_levels} levels; for downsampling factors use levels_of_factors"
        )
    if tokens and not attention_levels and not middle_attention:
        raise ValueError(
            f"tokens ({tokens}) enter by attention, but the network has none; set attention_levels or "
            "middle_attention, or drop tokens"
        )


def heads_of(width: int, num_heads: int, head_channels: int | None) -> int:
    """The number of heads, of which ``head_channels``, if given, decides.

    Raises:
        ValueError: if the heads do not divide the width.
    """
    if head_channels is None:
        return num_heads
    if width % head_channels != 0:
        raise ValueError(
            f"head_channels ({head_channels}) must divide the channels ({width}) of every level with "
            "attention; change one of them, or give num_heads"
        )
    return width // head_channels


class Blocks:
    """Makes the blocks of one network, which all have the same options; those are of ``adm_unet``."""

    def __init__(
        self,
        *,
        embed_dim: int,
        scale_shift: bool,
        residual_resampling: bool,
        conv_resample: bool = True,
        downsample_padding: tuple[int, int] = (1, 1),
        dropout: float = 0.0,
        dims: int = 2,
        num_groups: int = 32,
        norm_eps: float = 1e-5,
        checkpointing: bool = False,
    ) -> None:
        self.residual_resampling = residual_resampling
        self.conv_resample = conv_resample
        self.downsample_padding = downsample_padding
        self.dims = dims
        self.stage = partial(BlockSequence, checkpointing=checkpointing)
        self.res_block = partial(
            ResBlock,
            embed_dim=embed_dim,
            dims=dims,
            dropout=dropout,
            embedding_norm=AdaptiveGroupNorm if scale_shift else ShiftedGroupNorm,
            num_groups=num_groups,
            eps=norm_eps,
        )

    def downsample(self, width: int) -> nn.Module:
        """The way down to the next resolution."""
        if self.residual_resampling:
            return self.res_block(width, width, resample=average_pool(self.dims))
        if not self.conv_resample:
            return ResampleBlock(average_pool(self.dims))
        return ResampleBlock(Downsample(width, dims=self.dims, padding=self.downsample_padding))

    def upsample(self, width: int) -> nn.Module:
        """The way up to the resolution before."""
        if self.residual_resampling:
            return self.res_block(width, width, resample=nearest_upsample())
        return ResampleBlock(Upsample(width, dims=self.dims) if self.conv_resample else nearest_upsample())

    def descend(
        self,
        channels: Sequence[int],
        num_res_blocks: int,
        num_resamples: int,
        attention: MakeAttention,
        middle_attention: MakeAttention,
    ) -> tuple[list[BlockSequence], BlockSequence, list[int]]:
        """The stages of the encoder, that of the middle, and the widths of what they skip to a decoder.

        Raises:
            ValueError: for sizes that do not fit together.
        """
        num_levels = len(channels)
        if num_res_blocks < 1:
            raise ValueError(f"num_res_blocks ({num_res_blocks}) must be at least 1")
        if not 0 <= num_resamples < num_levels:
            raise ValueError(
                f"num_resamples ({num_resamples}) must be between 0 and {num_levels - 1}: channel_mult has "
                f"{num_levels} levels, so that many boundaries; add levels or resample fewer times"
            )

        # Encoder: on each level the residual blocks, then the way down to the next resolution
        encoder: list[BlockSequence] = []
        current = channels[0]
        skips = [current]
        for level, width in enumerate(channels):
            for _ in range(num_res_blocks):
                encoder.append(self.stage(self.res_block(current, width), *attention(level, width)))
                current = width
                skips.append(current)
            if level < num_resamples:
                encoder.append(self.stage(self.downsample(current)))
                skips.append(current)

        # Middle
        first, last = self.res_block(current, current), self.res_block(current, current)
        return encoder, self.stage(first, *middle_attention(num_levels - 1, current), last), skips


def assemble(
    embedding: Callable[[], ConditionEmbedding],
    *,
    embed_dim: int,
    attention: MakeAttention,
    middle_attention: MakeAttention,
    decoder_attention: MakeAttention,
    in_channels: int,
    out_channels: int | None,
    channels: Sequence[int],
    num_res_blocks: int,
    scale_shift: bool,
    residual_resampling: bool,
    num_resamples: int | None = None,
    conv_resample: bool = True,
    downsample_padding: tuple[int, int] = (1, 1),
    learned_variance: bool = False,
    dropout: float = 0.0,
    dims: int = 2,
    num_groups: int = 32,
    norm_eps: float = 1e-5,
    checkpointing: bool = False,
    dtype: torch.dtype | None = None,
) -> ADMUNet:
    """Build the network around its embedding and its attention blocks.

    Args:
        embedding: makes what embeds the time and the conditions.
        embed_dim: the width of the embedding.
        attention: makes the attention blocks of the encoder.
        middle_attention: makes that of the middle.
        decoder_attention: makes those of the decoder.
        channels: the channels of each level.

        The others are those of ``adm_unet``.

    Raises:
        ValueError: for sizes that do not fit together.
    """
    out_channels = in_channels if out_channels is None else out_channels
    blocks = Blocks(
        embed_dim=embed_dim,
        scale_shift=scale_shift,
        residual_resampling=residual_resampling,
        conv_resample=conv_resample,
        downsample_padding=downsample_padding,
        dropout=dropout,
        dims=dims,
        num_groups=num_groups,
        norm_eps=norm_eps,
        checkpointing=checkpointing,
    )
    num_resamples = len(channels) - 1 if num_resamples is None else num_resamples
    encoder, middle, skips = blocks.descend(channels, num_res_blocks, num_resamples, attention, middle_attention)

    # Decoder: each level takes its own skips, the last of which is the one that entered the level;
    # a level that began without a downsampling has no such skip, and ends without an upsampling
    decoder, current = [], channels[-1]
    for level, width in reversed(list(enumerate(channels))):
        for i in reversed(range(num_res_blocks + (level <= num_resamples))):
            parts = [blocks.res_block(current + skips.pop(), width), *decoder_attention(level, width)]
            if i == 0 and 0 < level <= num_resamples:
                parts.append(blocks.upsample(width))
            decoder.append(blocks.stage(*parts))
            current = width

    head = LearnedVarianceHead if learned_variance else Head
    network = ADMUNet(
        embedding(),
        conv(dims, in_channels, channels[0], 3, padding=1),
        encoder,
        middle,
        decoder,
        head(channels[0], out_channels, dims=dims, num_groups=num_groups, eps=norm_eps),
        size_multiple=2**num_resamples,
    )
    for part in (network.conv_in, network.encoder, network.middle, network.decoder):
        part.to(dtype=dtype)
    return network
