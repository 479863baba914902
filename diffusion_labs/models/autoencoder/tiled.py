"""Large images in overlapping tiles, large batches in slices."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor


def tiled(function: Callable[[Tensor], Tensor], x: Tensor, *, tile: int, overlap: int) -> Tensor:
    """Apply a function to overlapping tiles and blend the results: memory for one tile, whatever the size of x.

    ``sum_i w_i f(x_i) / sum_i w_i`` at each position, where the weight of a tile falls linearly from 1 to 0 across the
    middle half of the overlap with its neighbour, so that nothing jumps, and nothing near a tile's edge counts. What
    looks no further than a quarter of the overlap is therefore as for the whole. Attention and group norm see one tile,
    so an autoencoder's colours may drift a little from tile to tile; larger tiles help.

    Args:
        function: from ``[b, c, *size]`` to ``[b, o, *(ratio * size)]``, with one ratio for all sides, for example
            ``model.describe`` or ``model.decode`` of an autoencoder.
        x: ``[b, c, *size]``; a side that is shorter than a tile is one tile.
        tile: side of the tiles, in positions of x. For an encoder a multiple of its ``factor``, as are the sides of x.
        overlap: positions of x that neighbouring tiles share at least; likewise.

    Raises:
        ValueError: if the tiles overlap altogether, or do not lie on whole positions of the result.

    Example:
        >>> posterior = DiagonalGaussian.of(tiled(model.describe, images, tile=512, overlap=128))
        >>> images = tiled(model.decode, posterior.mode(), tile=64, overlap=16)
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap ({overlap}) must be at least 0 and less than tile ({tile})")
    size = x.shape[2:]
    blended = total = torch.zeros(())
    for starts in itertools.product(*(_starts(side, tile, overlap) for side in size)):
        y = function(x[_region(starts, [tile] * len(size))])
        ratio = Fraction(y.shape[2], min(tile, size[0]))
        if any((ratio * length).denominator != 1 for length in (*starts, overlap)):
            raise ValueError(
                f"tiles start at {starts} and overlap by {overlap}, which is no whole position of the result, at "
                f"{ratio} of the size; make tile, overlap and the sides of x multiples of its inverse"
            )
        if total.dim() == 0:
            blended = y.new_zeros(*y.shape[:2], *(int(ratio * side) for side in size))
            total = y.new_zeros(blended.shape[2:])
        begins = [int(ratio * start) for start in starts]
        weight = _weight(y, begins, blended.shape[2:], int(ratio * overlap))
        blended[_region(begins, y.shape[2:])] += weight * y
        total[_region(begins, y.shape[2:])] += weight
    return blended / total


def sliced(function: Callable[[Tensor], Tensor], x: Tensor, *, samples: int = 1) -> Tensor:
    """Apply a function to a few samples at a time: memory for these, whatever the size of the batch.

    Args:
        function: from ``[b, ...]`` to ``[b, ...]``, sample by sample; with tiles ``partial(tiled, function, ...)``.
        x: ``[b, ...]``.
        samples: at a time.

    Raises:
        ValueError: if ``samples`` is less than 1.

    Example:
        >>> images = sliced(model.decode, latents)
    """
    if samples < 1:
        raise ValueError(f"samples ({samples}) must be at least 1")
    return torch.cat([function(some) for some in x.split(samples)])


def _region(begins: Sequence[int], sides: Sequence[int]) -> tuple[Any, ...]:
    return (..., *(slice(begin, begin + side) for begin, side in zip(begins, sides, strict=True)))


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start: every ``tile - overlap``, and the last one at the end."""
    return [*range(0, side - tile, tile - overlap), max(side - tile, 0)]


def _weight(y: Tensor, begins: Sequence[int], size: Sequence[int], overlap: int) -> Tensor:
    """The weight of a tile, ``[*size of y]``: falls at its edges, unless they are the edges of the whole."""
    weight = y.new_ones((), dtype=torch.promote_types(y.dtype, torch.float32))
    quarter = overlap // 4
    for begin, side, end in zip(begins, y.shape[2:], size, strict=True):
        index = torch.arange(side, device=y.device, dtype=weight.dtype)
        along = weight.new_ones(side)
        for neighbour, distance in ((begin > 0, index), (begin + side < end, index.flip(0))):
            if neighbour and overlap > 0:
                along = along * ((distance - quarter + 1) / (overlap - 2 * quarter + 1)).clamp(0, 1)
        weight = weight[..., None] * along
    return weight.to(y.dtype)
