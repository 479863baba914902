"""Builds the Transformer of PixArt from sizes."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import (
    CaptionCondition,
    ConditionEmbedding,
    ModulatedCrossAttentionBlock,
    NumberCondition,
    StretchedPositions,
    TableModulation,
    TimeEmbedding,
    modulation,
    zero_init,
)
from diffusion_labs.models.transformer.build import FREQUENCY_DIM, check_depth, sides_of
from diffusion_labs.models.transformer.heads import LearnedVariancePatchHead, PatchHead
from diffusion_labs.models.transformer.initialisation import initialise_blocks, initialise_embedding, initialise_patches
from diffusion_labs.models.transformer.pixart import PixArt


@builder
def pixart(
    *,
    in_channels: int = 4,
    out_channels: int | None = None,
    size: int | tuple[int, int] = 64,
    patch_size: int = 2,
    dim: int = 1152,
    depth: int = 28,
    num_heads: int = 16,
    learned_variance: bool = False,
    tokens: Mapping[str, int] | None = None,
    classes: Mapping[str, int] | None = None,
    vectors: Mapping[str, int] | None = None,
    numbers: Mapping[str, int] | None = None,
    position_scale: float = 1.0,
    time_scale: float = 1.0,
    norm_eps: float = 1e-6,
    checkpointing: bool = False,
) -> PixArt:
    """Build the Transformer of "PixArt-alpha" (arXiv 2310.00426) and "PixArt-Sigma" (arXiv 2403.04692).

    The defaults are the sizes of PixArt-XL/2 on the latents of 512x512 images; the released ones are in ``PIXARTS``.

    Args:
        in_channels: channels of x, with those that adapters concatenate to it.
        out_channels: channels of the prediction; ``in_channels`` by default.
        size: the side of x, or its height and width, at which the positions are spaced by ``1 / position_scale``. Other
            sizes are stretched to the same range, see ``StretchedPositions``.
        patch_size: the side of a patch.
        dim: width of the tokens, and of the embedding of the time.
        depth: the number of blocks.
        num_heads: heads of each attention.
        learned_variance: also predict ``variance_value``, as the released networks do.
        tokens: token conditions, ``{name: width}``; input ``[b, n, width]``, and optionally ``<name>_mask``. By default
            ``{"text": 4096}``, for the states of T5.
        classes: class conditions, ``{name: number of classes}``; input ``[b]``, the null class is n.
        vectors: vector conditions, ``{name: width}``; input ``[b, width]``.
        numbers: how many numbers, by name; input ``[b, n]``. ``{"resolution": 2, "aspect_ratio": 1}`` in PixArt-alpha
            for 1024x1024 images: height and width, and their ratio.
        position_scale: see ``StretchedPositions``.
        time_scale: multiplies the time; 1000 for times in [0, 1] or EDM's c_noise, see ``sinusoidal_embedding``.
        norm_eps: eps of the norms of the blocks.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Returns:
        A network that predicts zero until it is trained.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = pixart(size=8, dim=16, depth=2, num_heads=2, tokens={"text": 6})
        >>> mask = torch.tensor([[True, True, False], [True, True, True]])
        >>> conditions = {"text": torch.randn(2, 3, 6), "text_mask": mask}
        >>> network(torch.randn(2, 4, 8, 12), torch.arange(2), conditions).prediction.shape
        torch.Size([2, 4, 8, 12])
    """
    check_depth(depth)
    tokens = {"text": 4096} if tokens is None else tokens
    if not tokens:
        raise ValueError("tokens must name at least one condition, to which the blocks attend; dit is without")
    head = LearnedVariancePatchHead if learned_variance else PatchHead

    network = PixArt(
        nn.Conv2d(in_channels, dim, patch_size, stride=patch_size),
        StretchedPositions(sides_of(size, patch_size), dim, scale=position_scale),
        ConditionEmbedding(
            TimeEmbedding(FREQUENCY_DIM, dim, scale=time_scale),
            classes=classes,
            vectors=vectors,
            tokens=tokens,
            context_dim=dim,
            joint=NumberCondition(numbers, dim) if numbers else None,
            project_tokens=CaptionCondition,
        ),
        modulation(dim, dim, 6),
        [
            ModulatedCrossAttentionBlock(
                dim, num_heads, context_dim=dim, modulation=TableModulation(dim, 6), eps=norm_eps
            )
            for _ in range(depth)
        ],
        head(
            dim,
            in_channels if out_channels is None else out_channels,
            patch_size=patch_size,
            modulation=TableModulation(dim, 2),
        ),
        checkpointing=checkpointing,
    )
    initialise(network)
    return network


def initialise(network: PixArt) -> None:
    """As in DiT; but the shared modulation begins narrow, so that the tables alone differ, and what attends to the text
    ends in zeros.

    PixArt-alpha, arXiv 2310.00426, section 2.3.
    """
    initialise_patches(network.patches)
    blocks: list[Any] = list(network.blocks)
    for block in blocks:
        initialise_blocks([block.attention, block.cross_attention, block.feed_forward])
        zero_init(block.cross_attention.out)
    initialise_embedding(network.embedding)
    initialise_embedding(network.modulation)
