"""Builds the U-ViT from sizes."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import EncoderBlock, FeedForward, SelfAttention, SkipEncoderBlock
from diffusion_labs.models.transformer.build import check_depth, sides_of
from diffusion_labs.models.transformer.uvit import PixelHead, TokenSequence, UViT


@builder
def uvit(
    *,
    in_channels: int = 4,
    out_channels: int | None = None,
    size: int | tuple[int, int] = 32,
    patch_size: int = 2,
    dim: int = 1024,
    depth: int = 21,
    num_heads: int = 16,
    classes: Mapping[str, int] | None = None,
    vectors: Mapping[str, int] | None = None,
    tokens: Mapping[str, int] | None = None,
    num_tokens: int = 77,
    convolution: bool = True,
    bias: bool = False,
    time_scale: float = 1.0,
    checkpointing: bool = False,
) -> UViT:
    """Build the network of "All are Worth Words: A ViT Backbone for Diffusion Models" (U-ViT, arXiv 2209.12152).

    The defaults are the sizes of U-ViT-L/2 on the latents of 256x256 images; the released ones are in ``UVITS``.

    Args:
        in_channels: channels of x, with those that adapters concatenate to it.
        out_channels: channels of the prediction; ``in_channels`` by default.
        size: the side of x, or its height and width.
        patch_size: the side of a patch.
        dim: width of the tokens.
        depth: the number of blocks, which is odd: a middle one between shallow and deep ones.
        num_heads: heads of each attention.
        classes: class conditions, ``{name: number of classes}``; input ``[b]``, the null class is n. Each is a token.
        vectors: vector conditions, ``{name: width}``; input ``[b, width]``. Each is a token.
        tokens: token conditions, ``{name: width}``; input ``[b, n, width]``, and optionally ``<name>_mask``.
        num_tokens: the most tokens of a token condition.
        convolution: end with a 3x3 convolution of the pixels; not in U-ViT-H.
        bias: of the projections to q, k and v.
        time_scale: multiplies the time; 1000 for times in [0, 1] or EDM's c_noise, see ``sinusoidal_embedding``.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Returns:
        A network with random weights.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = uvit(in_channels=1, size=8, dim=16, depth=3, num_heads=2, classes={"class": 10})
        >>> output = network(torch.randn(4, 1, 8, 8), torch.arange(4), {"class": torch.arange(4)})
        >>> output.prediction.shape
        torch.Size([4, 1, 8, 8])
    """
    check_depth(depth)
    grid = sides_of(size, patch_size)
    out_channels = in_channels if out_channels is None else out_channels
    kinds = [EncoderBlock] * (depth - depth // 2) + [SkipEncoderBlock] * (depth // 2)

    network = UViT(
        nn.Conv2d(in_channels, dim, patch_size, stride=patch_size),
        TokenSequence(
            dim,
            grid[0] * grid[1],
            classes=classes or {},
            vectors=vectors or {},
            tokens=tokens or {},
            num_tokens=num_tokens,
            time_scale=time_scale,
        ),
        grid,
        [kind(dim, SelfAttention(dim, num_heads, bias=bias), FeedForward(dim, activation=F.gelu)) for kind in kinds],
        PixelHead(
            dim,
            out_channels,
            patch_size=patch_size,
            out=nn.Conv2d(out_channels, out_channels, 3, padding=1) if convolution else nn.Identity(),
        ),
        checkpointing=checkpointing,
    )
    initialise(network)
    return network


def initialise(network: UViT) -> None:
    """Narrow normal weights in the linear layers and positions, cut at two standard units, and no biases.

    As in the code that was released with U-ViT.
    """
    nn.init.trunc_normal_(network.sequence.positions, std=0.02)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
