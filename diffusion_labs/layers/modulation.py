"""Modulation: shifts, scales and gates that depend on an embedding."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs.layers.convolution import zero_init


def modulate(
    x: Float[Tensor, "b n c"], shift: Float[Tensor, "b c"], scale: Float[Tensor, "b c"]
) -> Float[Tensor, "b n c"]:
    """``x * (1 + scale) + shift``, the same for all tokens of a sample."""
    return x * (1 + scale[:, None]) + shift[:, None]


def modulation(embed_dim: int, dim: int, parts: int) -> nn.Sequential:
    """From an embedding ``[b, embed_dim]`` to shifts, scales or gates, ``[b, parts * dim]``; all start at zero."""
    return nn.Sequential(nn.SiLU(), zero_init(nn.Linear(embed_dim, parts * dim)))


class TableModulation(nn.Module):
    """``embedding + table``: all that blocks of their own have in adaLN-single, which shares the rest between them.

    PixArt-alpha, arXiv 2310.00426, section 2.3. The table starts with a standard deviation of ``1 / sqrt(dim)``.

    Args:
        dim: width of the tokens.
        parts: how many shifts, scales and gates there are.
    """

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(parts, dim) / dim**0.5)

    def forward(self, embedding: Float[Tensor, "*b e"]) -> Float[Tensor, "*b k"]:
        """From ``[..., parts * dim]``, or from ``[..., dim]`` for all parts, to ``[..., parts * dim]``."""
        return (embedding.unflatten(-1, (-1, self.table.shape[1])) + self.table).flatten(-2)
