"""Builds the diffusion Transformer from sizes."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import (
    ConditionEmbedding,
    GatedFeedForward,
    ModulatedTransformerBlock,
    RMSNorm,
    RotaryPositions,
    TimeEmbedding,
    modulation,
    sinusoidal_positions,
)
from diffusion_labs.models.transformer.dit import DiT
from diffusion_labs.models.transformer.heads import LearnedVariancePatchHead, PatchHead
from diffusion_labs.models.transformer.initialisation import initialise_blocks, initialise_embedding, initialise_patches

FREQUENCY_DIM = 256  # width of the sinusoids of the time


@builder
def dit(
    *,
    in_channels: int = 4,
    out_channels: int | None = None,
    size: int | tuple[int, int] = 32,
    patch_size: int = 2,
    dim: int = 1152,
    depth: int = 28,
    num_heads: int = 16,
    learned_variance: bool = False,
    classes: Mapping[str, int] | None = None,
    time_scale: float = 1.0,
    time_shift: int = 0,
    norm_eps: float = 1e-6,
    feed_forward_eps: float | None = None,
    qk_norm: bool = False,
    rotary: bool = False,
    swiglu: bool = False,
    embedding_per_block: bool = False,
    checkpointing: bool = False,
) -> DiT:
    """Build the network of "Scalable Diffusion Models with Transformers" (DiT, arXiv 2212.09748).

    The defaults are the sizes of DiT-XL/2 on the latents of 256x256 images; the paper's others are in ``DITS``.

    Args:
        in_channels: channels of x, with those that adapters concatenate to it.
        out_channels: channels of the prediction; ``in_channels`` by default.
        size: the side of x, or its height and width.
        patch_size: the side of a patch.
        dim: width of the tokens, and of the embedding of the time and the classes.
        depth: the number of blocks.
        num_heads: heads of each attention.
        learned_variance: also predict ``variance_value``, as the paper's networks do.
        classes: class conditions, ``{name: number of classes}``; input ``[b]``, the null class is n.
        time_scale: multiplies the time; 1000 for times in [0, 1] or EDM's c_noise, see ``sinusoidal_embedding``.
        time_shift: see ``sinusoidal_embedding``; 1 in the ``DiTTransformer2DModel`` of diffusers.
        norm_eps: eps of every norm.
        feed_forward_eps: eps of the norms before feed-forward networks; ``norm_eps`` by default.
        qk_norm: normalise q and k by their root mean square, see ``HeadProjection``.
        rotary: rotate q and k by their positions, see ``RotaryPositions``; beside the positions that all have.
        swiglu: gated feed-forward networks, ``GatedFeedForward`` with SiLU, of 8/3 the width: as many parameters. These
            three are the choices of LightningDiT (arXiv 2501.01423).
        embedding_per_block: each block embeds the time and the classes by itself, as in diffusers.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Returns:
        A network that predicts zero until it is trained.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = dit(in_channels=1, size=8, dim=16, depth=2, num_heads=2, classes={"class": 10})
        >>> output = network(torch.randn(4, 1, 8, 8), torch.arange(4), {"class": torch.arange(4)})
        >>> output.prediction.shape
        torch.Size([4, 1, 8, 8])
    """
    check_depth(depth)
    grid = sides_of(size, patch_size)
    head = LearnedVariancePatchHead if learned_variance else PatchHead

    network = DiT(
        nn.Conv2d(in_channels, dim, patch_size, stride=patch_size),
        sinusoidal_positions(*grid, dim).to(torch.get_default_dtype()),
        grid,
        [
            ConditionEmbedding(
                TimeEmbedding(FREQUENCY_DIM, dim, shift=time_shift, scale=time_scale), classes=classes or {}
            )
            for _ in range(depth if embedding_per_block else 1)
        ],
        [
            ModulatedTransformerBlock(
                dim,
                num_heads,
                modulation=modulation(dim, dim, 6),
                eps=norm_eps,
                feed_forward_eps=norm_eps if feed_forward_eps is None else feed_forward_eps,
                qk_norm=lambda width: nn.Sequential(
                    *[RMSNorm(width)] * qk_norm, *[RotaryPositions(grid, width)] * rotary
                ),
                feed_forward=GatedFeedForward(dim, mult=8 / 3, activation=F.silu) if swiglu else None,
            )
            for _ in range(depth)
        ],
        head(
            dim,
            in_channels if out_channels is None else out_channels,
            patch_size=patch_size,
            modulation=modulation(dim, dim, 2),
            eps=norm_eps,
        ),
        checkpointing=checkpointing,
    )
    initialise(network)
    return network


def initialise(network: DiT) -> None:
    """Uniform weights after Glorot in the Transformer, narrow normal ones in the embeddings, and no biases.

    As in vision Transformers; what starts at zero is left so. DiT, arXiv 2212.09748, section 4.
    """
    initialise_patches(network.patches)
    blocks: list[Any] = list(network.blocks)
    for block in blocks:
        initialise_blocks([block.attention, block.feed_forward])
    embeddings: list[Any] = list(network.embeddings)
    for embedding in embeddings:
        initialise_embedding(embedding)


def sides_of(size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """The number of patches in a column and in a row of x.

    Raises:
        ValueError: if patches do not divide it.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if patch_size < 1 or any(side < 1 or side % patch_size != 0 for side in sides):
        raise ValueError(f"patch_size ({patch_size}) must divide size ({size}), and be at least 1; change one of them")
    return sides[0] // patch_size, sides[1] // patch_size


def check_depth(depth: int) -> None:
    """Raise a ``ValueError`` for a network without blocks."""
    if depth < 1:
        raise ValueError(f"depth ({depth}) must be at least 1")
