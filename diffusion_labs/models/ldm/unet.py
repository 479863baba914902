"""Builds the U-Net of latent diffusion from sizes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Unpack

from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import ConditionEmbedding, JointCondition, TimeEmbedding
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.adm_unet.assembly import (
    TrunkOptions,
    assemble,
    check_attention,
    heads_of,
    widths_of_levels,
)
from diffusion_labs.models.adm_unet.blocks import AttentionBlock
from diffusion_labs.models.adm_unet.transformer import SpatialTransformer


@builder
def ldm_unet(
    *,
    in_channels: int = 4,
    out_channels: int | None = None,
    model_channels: int = 320,
    channel_mult: Sequence[int | float] = (1, 2, 4, 4),
    num_res_blocks: int = 2,
    attention_levels: Collection[int] = (0, 1, 2),
    middle_attention: bool = True,
    depth: int | Sequence[int] = 1,
    num_heads: int = 8,
    head_channels: int | None = None,
    tokens: Mapping[str, int] | None = None,
    classes: Mapping[str, int] | None = None,
    vectors: Mapping[str, int] | None = None,
    numbers: Mapping[str, int] | None = None,
    frequency_dim: int = 256,
    time_scale: float = 1.0,
    scale_shift: bool = False,
    residual_resampling: bool = False,
    **options: Unpack[TrunkOptions],
) -> ADMUNet:
    """Build the U-Net of "High-Resolution Image Synthesis with Latent Diffusion Models" (LDM, arXiv 2112.10752).

    It is the U-Net of ADM with other defaults, and with a ``SpatialTransformer`` for each attention block if there are
    tokens. The defaults are the sizes of Stable Diffusion 1; those of other released networks are in ``LDM_UNETS``.

    A condition enters by cross-attention (``tokens``), in the embedding of the time (``classes``, ``vectors``,
    ``numbers``), or beside x: give its channels in ``in_channels``, and let an adapter such as ``SuperResolution`` or
    ``InPainting`` concatenate it. Several of them together are LDM's "hybrid" conditioning.

    Args:
        in_channels: channels of x, with those that adapters concatenate to it.
        out_channels: channels of the prediction; ``in_channels`` by default.
        model_channels: see ``adm_unet``.
        channel_mult: see ``adm_unet``.
        num_res_blocks: see ``adm_unet``.
        attention_levels: the levels with attention, 0 for the full resolution; see ``levels_of_factors``.
        middle_attention: attention between the two middle blocks.
        depth: Transformer blocks in a ``SpatialTransformer``; or a number for each level, of which the middle has the
            last, and those without attention may have 0.
        num_heads: heads per attention, unless ``head_channels`` is given.
        head_channels: channels per head; wins over ``num_heads``.
        tokens: token conditions, ``{name: width}``; input ``[b, n, width]``, and optionally ``<name>_mask``. They enter
            as they are, so all have one width.
        classes: class conditions, ``{name: number of classes}``; input ``[b]``, the null class is n.
        vectors: vector conditions, ``{name: width}``; input ``[b, width]``. They share one embedding with the numbers.
        numbers: how many numbers, such as sizes in pixels, by name; input ``[b, n]``.
        frequency_dim: width of the sinusoids of one number.
        time_scale: see ``adm_unet``.
        scale_shift: see ``adm_unet``.
        residual_resampling: see ``adm_unet``.
        options: the other options of ``adm_unet``: ``num_resamples``, ``conv_resample``,
            ``downsample_padding``, ``learned_variance``,
            ``dropout``, ``dims``, ``num_groups``, ``norm_eps`` (not of Transformers), ``checkpointing``, ``dtype``.

    Returns:
        A network that predicts zero until it is trained.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = ldm_unet(model_channels=32, channel_mult=(1, 2), attention_levels=(1,), tokens={"text": 6})
        >>> output = network(torch.randn(2, 4, 8, 8), torch.arange(2), {"text": torch.randn(2, 7, 6)})
        >>> output.prediction.shape
        torch.Size([2, 4, 8, 8])
    """
    channels = widths_of_levels(model_channels, channel_mult)
    tokens = dict(tokens or {})
    depths = [depth] * len(channels) if isinstance(depth, int) else list(depth)
    if len(depths) != len(channels):
        raise ValueError(
            f"depth ({depth}) has {len(depths)} numbers, but channel_mult {len(channels)} levels; give one for each, "
            "or one for all"
        )
    check_attention(attention_levels, len(channels), middle_attention, tokens)
    for level in (*attention_levels, *[len(channels) - 1] * middle_attention):
        if depths[level] < 1:
            raise ValueError(
                f"depth ({depth}) must be at least 1 on level {level}, which has attention; enlarge it, or take the "
                "level out of attention_levels (and set middle_attention to false, for the last)"
            )

    embed_dim = 4 * model_channels
    num_groups, norm_eps = options.get("num_groups", 32), options.get("norm_eps", 1e-5)

    def attention_block(level: int, width: int) -> list[nn.Module]:
        heads = heads_of(width, num_heads, head_channels)
        if not tokens:
            return [AttentionBlock(width, heads, num_groups=num_groups, eps=norm_eps)]
        context_dim = next(iter(tokens.values()))
        return [SpatialTransformer(width, heads, context_dim=context_dim, depth=depths[level], num_groups=num_groups)]

    def attention(level: int, width: int) -> list[nn.Module]:
        return attention_block(level, width) if level in attention_levels else []

    joint = None
    if vectors or numbers:
        joint = JointCondition(vectors or {}, numbers or {}, embed_dim, frequency_dim=frequency_dim)
    return assemble(
        lambda: ConditionEmbedding(
            TimeEmbedding(model_channels, embed_dim, scale=time_scale),
            classes=classes or {},
            vectors={},
            tokens=tokens,
            context_dim=None,
            joint=joint,
        ),
        embed_dim=embed_dim,
        attention=attention,
        middle_attention=lambda level, width: attention_block(level, width) if middle_attention else [],
        decoder_attention=attention,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=channels,
        num_res_blocks=num_res_blocks,
        scale_shift=scale_shift,
        residual_resampling=residual_resampling,
        **options,
    )
