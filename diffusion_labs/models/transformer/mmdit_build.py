"""Builds the Transformer with two streams from sizes."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import (
    AttendedStream,
    ConditionEmbedding,
    CroppedPositions,
    DualStream,
    JointCondition,
    JointTransformerBlock,
    RMSNorm,
    Stream,
    TimeEmbedding,
    modulation,
)
from diffusion_labs.models.transformer.build import FREQUENCY_DIM, check_depth, sides_of
from diffusion_labs.models.transformer.heads import PatchHead
from diffusion_labs.models.transformer.initialisation import initialise_blocks, initialise_embedding, initialise_patches
from diffusion_labs.models.transformer.mmdit import MMDiT


@builder
def mmdit(
    *,
    in_channels: int = 16,
    out_channels: int | None = None,
    max_size: int | tuple[int, int] = 384,
    position_scale: float = 3.0,
    patch_size: int = 2,
    dim: int = 1536,
    depth: int = 24,
    num_heads: int = 24,
    qk_norm: bool = False,
    dual_attention: Collection[int] = (),
    tokens: Mapping[str, int] | None = None,
    vectors: Mapping[str, int] | None = None,
    classes: Mapping[str, int] | None = None,
    time_scale: float = 1.0,
    checkpointing: bool = False,
) -> MMDiT:
    """Build the Transformer of "Scaling Rectified Flow Transformers" (Stable Diffusion 3, arXiv 2403.03206).

    The defaults are the sizes of Stable Diffusion 3 medium; the released ones are in ``MMDITS``.

    Args:
        in_channels: channels of x, with those that adapters concatenate to it.
        out_channels: channels of the prediction; ``in_channels`` by default.
        max_size: the side of the largest x, or its height and width. Smaller ones have the positions of its middle.
        position_scale: divides the coordinates of the positions.
        patch_size: the side of a patch.
        dim: width of the tokens of both streams, and of the embedding of the time.
        depth: the number of blocks. In the paper it is also that of the heads.
        num_heads: heads of each attention.
        qk_norm: normalise q and k by their root mean square, as Stable Diffusion 3.5 does.
        dual_attention: the blocks with a second attention, of the image to itself; the first 13 in Stable Diffusion 3.5
            medium.
        tokens: token conditions, ``{name: width}``; input ``[b, n, width]``, and optionally ``<name>_mask``. By default
            ``{"text": 4096}``, for the states of T5 and, filled up with zeros, of CLIP.
        vectors: vector conditions, ``{name: width}``; input ``[b, width]``, embedded together. By default
            ``{"pooled_text": 2048}``, for the pooled outputs of two CLIPs.
        classes: class conditions, ``{name: number of classes}``; input ``[b]``, the null class is n.
        time_scale: multiplies the time; 1000 for times in [0, 1], see ``sinusoidal_embedding``. The released weights
            have times up to 1000: ``RectifiedFlowSchedule(terminal=1000.0)``, or this.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Returns:
        A network that predicts zero until it is trained.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = mmdit(in_channels=4, max_size=16, dim=16, depth=2, num_heads=2, tokens={"text": 6}, vectors={})
        >>> network(torch.randn(2, 4, 8, 12), torch.rand(2), {"text": torch.randn(2, 7, 6)}).prediction.shape
        torch.Size([2, 4, 8, 12])
    """
    check_depth(depth)
    tokens = {"text": 4096} if tokens is None else tokens
    vectors = {"pooled_text": 2048} if vectors is None else vectors
    if not tokens:
        raise ValueError("tokens must name at least one condition, the second stream; dit is without")
    if any(not 0 <= index < depth for index in dual_attention):
        raise ValueError(f"dual_attention ({tuple(dual_attention)}) must be numbers of blocks, 0 to {depth - 1}")
    options: Any = {"embed_dim": dim, "qk_norm": RMSNorm if qk_norm else nn.Identity}
    image = [partial(DualStream if i in dual_attention else Stream, dim, num_heads, **options) for i in range(depth)]
    context = [partial(Stream if i + 1 < depth else AttendedStream, dim, num_heads, **options) for i in range(depth)]

    network = MMDiT(
        nn.Conv2d(in_channels, dim, patch_size, stride=patch_size),
        CroppedPositions(sides_of(max_size, patch_size), dim, scale=position_scale),
        ConditionEmbedding(
            TimeEmbedding(FREQUENCY_DIM, dim, scale=time_scale),
            classes=classes,
            tokens=tokens,
            context_dim=dim,
            joint=JointCondition(vectors, {}, dim) if vectors else None,
        ),
        [JointTransformerBlock(of_image(), of_text()) for of_image, of_text in zip(image, context, strict=True)],
        PatchHead(
            dim,
            in_channels if out_channels is None else out_channels,
            patch_size=patch_size,
            modulation=modulation(dim, dim, 2),
        ),
        checkpointing=checkpointing,
    )
    initialise(network)
    return network


def initialise(network: MMDiT) -> None:
    """As in DiT: uniform weights after Glorot in the streams, narrow normal ones in the embeddings."""
    initialise_patches(network.patches)
    initialise_embedding(network.embedding)
    blocks: list[Any] = list(network.blocks)
    for stream in (stream for block in blocks for stream in (block.image, block.context)):
        initialise_blocks(part for name, part in stream.named_children() if name != "modulation")
