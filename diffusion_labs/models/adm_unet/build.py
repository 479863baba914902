"""Builds the U-Net of ADM from sizes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import (
    ConditionEmbedding,
    ProjectedTokenCondition,
    SplitHeads,
    TimeEmbedding,
    split_heads_interleaved,
    split_heads_stacked,
)
from diffusion_labs.models.adm_unet.assembly import (
    MakeAttention,
    assemble,
    check_attention,
    heads_of,
    widths_of_levels,
)
from diffusion_labs.models.adm_unet.blocks import AttentionBlock, ContextAttentionBlock
from diffusion_labs.models.adm_unet.network import ADMUNet

ATTENTION_ORDERS: dict[str, SplitHeads] = {
    "legacy": split_heads_interleaved,
    "new": split_heads_stacked,
}


def levels_of_factors(factors: Iterable[int]) -> tuple[int, ...]:
    """The levels at which the data is downsampled by these factors: ``log2`` of each.

    Papers list the resolutions with attention in pixels, LDM's configurations as factors; this
    library counts levels.

    Args:
        factors: powers of two.

    Raises:
        ValueError: if a factor is not a power of two.

    Example:
        >>> levels_of_factors([2, 4, 8])
        (1, 2, 3)
        >>> levels_of_factors(64 // side for side in (32, 16, 8))
        (1, 2, 3)
    """
    factors = tuple(factors)
    for factor in factors:
        if factor < 1 or factor & (factor - 1) != 0:
            raise ValueError(
                f"factors has {factor}, but must hold powers of two: 1 for full resolution, 2 for half of it"
            )
    return tuple(factor.bit_length() - 1 for factor in factors)


@builder
def adm_unet(
    *,
    in_channels: int = 3,
    out_channels: int | None = None,
    model_channels: int = 128,
    channel_mult: Sequence[int | float] = (1, 2, 4, 8),
    num_res_blocks: int = 2,
    num_resamples: int | None = None,
    attention_levels: Collection[int] = (),
    middle_attention: bool = True,
    num_heads: int = 1,
    head_channels: int | None = None,
    num_heads_upsample: int | None = None,
    attention_order: str = "legacy",
    scale_shift: bool = True,
    residual_resampling: bool = True,
    conv_resample: bool = True,
    downsample_padding: tuple[int, int] = (1, 1),
    learned_variance: bool = False,
    dropout: float = 0.0,
    classes: Mapping[str, int] | None = None,
    vectors: Mapping[str, int] | None = None,
    tokens: Mapping[str, int] | None = None,
    vector_tokens: Mapping[str, int] | None = None,
    token_norm: bool = False,
    context_dim: int | None = None,
    embed_dim: int | None = None,
    time_dim: int | None = None,
    time_scale: float = 1.0,
    time_shift: int = 0,
    dims: int = 2,
    num_groups: int = 32,
    norm_eps: float = 1e-5,
    checkpointing: bool = False,
    dtype: torch.dtype | None = None,
) -> ADMUNet:
    """Build the U-Net of "Diffusion Models Beat GANs on Image Synthesis" (ADM, arXiv 2105.05233).

    Args:
        in_channels: channels of x, with those that adapters concatenate to it.
        out_channels: channels of the prediction; ``in_channels`` by default.
        model_channels: the unit of width; the time embedding has four times as many.
        channel_mult: the width of each level in units of ``model_channels``; fractions are allowed.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more where a
            level begins with a downsampling, and at the top.
        num_resamples: how many of the boundaries between levels change the resolution, from the top;
            the levels below keep it. All of them by default.
        attention_levels: the levels with attention, 0 for the full resolution; see ``levels_of_factors``.
        middle_attention: attention between the two middle blocks. Off in the upsamplers of DALL-E 2,
            which have no attention anywhere and so take any size.
        num_heads: heads per attention block, unless ``head_channels`` is given.
        head_channels: channels per head; wins over ``num_heads`` and ``num_heads_upsample``.
        num_heads_upsample: heads in the decoder; ``num_heads`` by default.
        attention_order: order of q, k and v in the channels. Checkpoints do not say which they use:
            "new" in ADM's 64x64, "legacy" in its others and in GLIDE.
        scale_shift: the time embedding scales and shifts each norm's output (ADM); if false it is
            added to its input (DDPM, LDM).
        residual_resampling: resample inside of residual blocks (ADM); if false, between them (LDM).
        conv_resample: with a convolution, where ``residual_resampling`` is false.
        downsample_padding: of that convolution, see ``Downsample``; ``(0, 1)`` in DDPM (arXiv 2006.11239).
        learned_variance: also predict ``variance_value``.
        dropout: dropout rate of the residual blocks.
        classes: class conditions, ``{name: number of classes}``; input ``[b]``, the null class is n.
        vectors: vector conditions, ``{name: width}``; input ``[b, width]``.
        tokens: token conditions, ``{name: width}``; input ``[b, n, width]``, and optionally
            ``<name>_mask``. Keys and values of all attention blocks (GLIDE, arXiv 2112.10741).
        vector_tokens: of how many of these tokens a vector also makes, by the name in ``vectors`` (DALL-E 2, arXiv
            2204.06125, section 2.1).
        token_norm: normalise ``tokens`` after their projection, as in Karlo, a DALL-E 2 whose weights are released.
        context_dim: width of the tokens in the network; that of the time embedding by default.
        embed_dim: width of the embedding of the time; ``4 * model_channels`` by default.
        time_dim: width of the sinusoids of the time; ``model_channels`` by default.
        time_scale: multiplies the time; 1000 for times in [0, 1] or EDM's c_noise, see ``sinusoidal_embedding``.
        time_shift: 1 in DDPM, see ``sinusoidal_embedding``.
        dims: number of spatial dimensions, 1, 2 or 3. Resampling changes all of them.
        num_groups: groups of every norm.
        norm_eps: eps of every norm.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.
        dtype: dtype of the first convolution, encoder, middle and decoder, for example
            ``torch.float16``; embeddings and head keep torch's default dtype. For FSDP2 prefer its
            mixed precision policy, as it wants one dtype in each group of parameters.

    Returns:
        A network that predicts zero until it is trained.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = adm_unet(in_channels=1, model_channels=32, channel_mult=(1, 2), classes={"class": 10})
        >>> output = network(torch.randn(4, 1, 8, 8), torch.arange(4), {"class": torch.arange(4)})
        >>> output.prediction.shape
        torch.Size([4, 1, 8, 8])
    """
    channels = widths_of_levels(model_channels, channel_mult)
    if attention_order not in ATTENTION_ORDERS:
        raise ValueError(f"attention_order ({attention_order!r}) must be one of {list(ATTENTION_ORDERS)}")
    tokens = dict(tokens or {})
    context = {**tokens, **(vector_tokens or {})}
    check_attention(attention_levels, len(channels), middle_attention, context)

    embed_dim = 4 * model_channels if embed_dim is None else embed_dim
    time_dim = model_channels if time_dim is None else time_dim
    context_dim = embed_dim if context_dim is None else context_dim
    attention_class = partial(ContextAttentionBlock, context_dim=context_dim) if context else AttentionBlock

    def attention_block(width: int, heads: int) -> list[nn.Module]:
        heads = heads_of(width, heads, head_channels)
        split_heads = ATTENTION_ORDERS[attention_order]
        return [attention_class(width, heads, split_heads=split_heads, num_groups=num_groups, eps=norm_eps)]

    def attention(heads: int) -> MakeAttention:
        return lambda level, width: attention_block(width, heads) if level in attention_levels else []

    return assemble(
        lambda: ConditionEmbedding(
            TimeEmbedding(time_dim, embed_dim, scale=time_scale, shift=time_shift),
            classes=classes or {},
            vectors=vectors or {},
            tokens=tokens,
            context_dim=context_dim,
            vector_tokens=vector_tokens,
            project_tokens=partial(ProjectedTokenCondition, norm=token_norm),
        ),
        embed_dim=embed_dim,
        attention=attention(num_heads),
        middle_attention=lambda level, width: attention_block(width, num_heads) if middle_attention else [],
        decoder_attention=attention(num_heads if num_heads_upsample is None else num_heads_upsample),
        in_channels=in_channels,
        out_channels=out_channels,
        channels=channels,
        num_res_blocks=num_res_blocks,
        num_resamples=num_resamples,
        scale_shift=scale_shift,
        residual_resampling=residual_resampling,
        conv_resample=conv_resample,
        downsample_padding=downsample_padding,
        learned_variance=learned_variance,
        dropout=dropout,
        dims=dims,
        num_groups=num_groups,
        norm_eps=norm_eps,
        checkpointing=checkpointing,
        dtype=dtype,
    )
