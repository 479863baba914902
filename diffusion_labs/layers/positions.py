"""Positions in an image as vectors."""

import torch
from jaxtyping import Float
from torch import Tensor


def sinusoidal_positions(height: int, width: int, dim: int) -> Float[Tensor, "n {dim}"]:
    """Sines and cosines of the column, then of the row, for each position in reading order.

    ``[sin(x f), cos(x f), sin(y f), cos(y f)]`` with ``f_i = 10000^(-i / q)``, ``q = dim / 4`` and ``i < q``. The
    formula of arXiv 1706.03762, section 3.5, for each coordinate, as DiT has it (arXiv 2212.09748, section 3.2).

    Args:
        height: the number of rows.
        width: the number of columns.
        dim: width of the vectors.

    Returns:
        ``[height * width, dim]``, computed in float64 and rounded to torch's default dtype.

    Raises:
        ValueError: unless four divides ``dim``.
    """
    if dim < 4 or dim % 4 != 0:
        raise ValueError(f"dim ({dim}) must be a multiple of 4: a sine and a cosine for each of two coordinates")
    quarter = dim // 4
    frequencies = 10_000 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    x, y = (coordinate.reshape(-1, 1) * frequencies for coordinate in (columns, rows))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).to(torch.get_default_dtype())
