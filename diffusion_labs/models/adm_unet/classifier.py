"""The classifier of noisy data that guides ADM: the encoder of its U-Net, and attention that pools."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import (
    Conv,
    GroupNorm,
    TimeEmbedding,
    attention,
    conv,
    merge_heads,
    split_heads_stacked,
)
from diffusion_labs.models.adm_unet.assembly import Blocks, check_attention, heads_of, widths_of_levels
from diffusion_labs.models.adm_unet.blocks import AttentionBlock, BlockSequence


class AttentionPool(nn.Module):
    """``out(attention(q, k, v))`` of the mean of all positions, which attends to itself and to the positions.

    The tokens are the mean, then the positions in reading order, plus learned vectors; ``q, k, v`` are linear in them.
    From CLIP (arXiv 2103.00020, section 2.4), as ADM's classifier has it (arXiv 2105.05233, section 4).

    Args:
        channels: channels of the features.
        num_heads: the number of heads.
        num_positions: the number of positions of the features.
        num_outputs: width of the output.
    """

    def __init__(self, channels: int, num_heads: int, *, num_positions: int, num_outputs: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.positions = nn.Parameter(torch.randn(channels, num_positions + 1) / channels**0.5)
        self.qkv = conv(1, channels, 3 * channels, 1)
        self.out = conv(1, channels, num_outputs, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Pool features ``[b, channels, *size]`` to ``[b, num_outputs]``."""
        h = h.flatten(2)
        h = torch.cat([h.mean(2, keepdim=True), h], dim=2) + self.positions
        q, k, v = split_heads_stacked(self.qkv(h, to_tokens=True), self.num_heads, 3)
        pooled = merge_heads(attention(q[:, :, :1], k, v))
        logits: Tensor = self.out(pooled.mT).flatten(1)
        return logits


class ADMClassifier(nn.Module):
    """The classifier of ADM (arXiv 2105.05233, section 4); ``adm_classifier`` builds it from sizes.

    Called as ``classifier(x_t, timestep)``, it returns logits: what ``ClassifierGuidance`` takes.

    Args:
        time: embeds the time.
        conv_in: the first convolution.
        encoder: stages down to the lowest resolution.
        middle: the stage at the lowest resolution.
        norm: of the features.
        pool: from features to logits.
        size: the side of x.
    """

    def __init__(
        self,
        time: TimeEmbedding,
        conv_in: Conv,
        encoder: Sequence[BlockSequence],
        middle: BlockSequence,
        norm: GroupNorm,
        pool: AttentionPool,
        *,
        size: int,
    ) -> None:
        super().__init__()
        self.size = size
        self.time = time
        self.conv_in = conv_in
        self.encoder = nn.ModuleList(encoder)
        self.middle = middle
        self.norm = norm
        self.pool = pool

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Classify.

        Args:
            x: noisy data ``[b, in_channels, *size]``, of the size that the network was built for.
            timestep: the time of each sample, integer or floating, ``[b]``.

        Returns:
            Logits ``[b, num_classes]``, in the dtype of x.

        Raises:
            ValueError: for an input of another shape.
        """
        expected = [self.conv_in.in_channels, *[self.size] * (self.conv_in.weight.dim() - 2)]
        if list(x.shape[1:]) != expected:
            raise ValueError(
                f"x has shape {list(x.shape)}, but must be {[len(x), *expected]}; build the classifier with another "
                "size, or resize x"
            )
        h = self.conv_in(x.to(self.conv_in.weight.dtype))
        embedding = self.time(timestep)
        for stage in (*self.encoder, self.middle):
            h = stage(h, embedding, None)
        logits: Tensor = self.pool(F.silu(self.norm(h)))
        return logits.to(x.dtype)


@builder
def adm_classifier(
    *,
    size: int,
    num_classes: int = 1000,
    in_channels: int = 3,
    model_channels: int = 128,
    channel_mult: Sequence[int | float] = (1, 1, 2, 2, 4, 4),
    num_res_blocks: int = 2,
    attention_levels: Collection[int] = (3, 4, 5),
    num_heads: int = 1,
    head_channels: int | None = 64,
    scale_shift: bool = True,
    residual_resampling: bool = True,
    conv_resample: bool = True,
    dropout: float = 0.0,
    time_scale: float = 1.0,
    dims: int = 2,
    num_groups: int = 32,
    norm_eps: float = 1e-5,
    checkpointing: bool = False,
) -> ADMClassifier:
    """Build the classifier of noisy images of "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233).

    The defaults are those of the classifier for 256x256 images; the released ones are in ``ADM_CLASSIFIERS``.

    Args:
        size: the side of x.
        num_classes: the number of logits.
        in_channels: channels of x.
        model_channels: see ``adm_unet``.
        channel_mult: see ``adm_unet``.
        num_res_blocks: residual blocks per level.
        attention_levels: the levels with attention, 0 for the full resolution; see ``levels_of_factors``. The middle
            has it always.
        num_heads: heads per attention, unless ``head_channels`` is given.
        head_channels: channels per head; wins over ``num_heads``.
        scale_shift: see ``adm_unet``.
        residual_resampling: see ``adm_unet``.
        conv_resample: see ``adm_unet``.
        dropout: see ``adm_unet``.
        time_scale: see ``adm_unet``.
        dims: number of spatial dimensions, 1, 2 or 3.
        num_groups: groups of every norm.
        norm_eps: eps of every norm.
        checkpointing: see ``adm_unet``.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> classifier = adm_classifier(size=8, num_classes=10, channel_mult=(1, 2), attention_levels=())
        >>> classifier(torch.randn(4, 3, 8, 8), torch.arange(4)).shape
        torch.Size([4, 10])
    """
    channels = widths_of_levels(model_channels, channel_mult)
    check_attention(attention_levels, len(channels), True, None)
    factor = 2 ** (len(channels) - 1)
    if size < factor or size % factor != 0:
        raise ValueError(f"size ({size}) must be a multiple of {factor}, as channel_mult has {len(channels)} levels")
    embed_dim, width = 4 * model_channels, channels[-1]
    blocks = Blocks(
        embed_dim=embed_dim,
        scale_shift=scale_shift,
        residual_resampling=residual_resampling,
        conv_resample=conv_resample,
        dropout=dropout,
        dims=dims,
        num_groups=num_groups,
        norm_eps=norm_eps,
        checkpointing=checkpointing,
    )

    def attention_block(level: int, width: int) -> list[nn.Module]:
        heads = heads_of(width, num_heads, head_channels)
        return [AttentionBlock(width, heads, num_groups=num_groups, eps=norm_eps)]

    encoder, middle, _ = blocks.descend(
        channels,
        num_res_blocks,
        len(channels) - 1,
        lambda level, width: attention_block(level, width) if level in attention_levels else [],
        attention_block,
    )
    return ADMClassifier(
        TimeEmbedding(model_channels, embed_dim, scale=time_scale),
        conv(dims, in_channels, channels[0], 3, padding=1),
        encoder,
        middle,
        GroupNorm(width, num_groups=num_groups, eps=norm_eps),
        AttentionPool(
            width,
            heads_of(width, num_heads, head_channels),
            num_positions=(size // factor) ** dims,
            num_outputs=num_classes,
        ),
        size=size,
    )
