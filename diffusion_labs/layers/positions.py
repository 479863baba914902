"""Positions in an image as vectors."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sinusoidal_positions(
    height: int,
    width: int,
    dim: int,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Float[Tensor, "n {dim}"]:
    """Sines and cosines of the column, then of the row, for each position in reading order.

    ``[sin(x f), cos(x f), sin(y f), cos(y f)]`` with ``f_i = 10000^(-i / q)``, ``q = dim / 4`` and ``i < q``. The
    formula of arXiv 1706.03762, section 3.5, for each coordinate, as DiT has it (arXiv 2212.09748, section 3.2).

    Args:
        height: the number of rows.
        width: the number of columns.
        dim: width of the vectors.
        spacing: of two rows and of two columns, in units of the coordinates x and y.
        dtype: compute in this precision.
        device: of the result.

    Returns:
        ``[height * width, dim]``, in ``dtype``.

    Raises:
        ValueError: unless four divides ``dim``.
    """
    if dim < 4 or dim % 4 != 0:
        raise ValueError(f"dim ({dim}) must be a multiple of 4: a sine and a cosine for each of two coordinates")
    quarter = dim // 4
    frequencies = 10_000 ** -(torch.arange(quarter, dtype=dtype, device=device) / quarter)
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device) * spacing[0],
        torch.arange(width, dtype=dtype, device=device) * spacing[1],
        indexing="ij",
    )
    x, y = (coordinate.reshape(-1, 1) * frequencies for coordinate in (columns, rows))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


class StretchedPositions(nn.Module):
    """The positions of any grid, over the range of one grid: ``x_i = i * base / n / scale`` for the i-th of n columns.

    PixArt-alpha and PixArt-Sigma have them, to be tuned for larger images than they were trained on (arXiv 2403.04692).

    Args:
        base: the numbers of rows and columns at which positions are ``1 / scale`` apart.
        dim: width of the vectors.
        scale: divides the coordinates.
    """

    def __init__(self, base: tuple[int, int], dim: int, *, scale: float = 1.0) -> None:
        super().__init__()
        sinusoidal_positions(1, 1, dim)  # refuses other widths
        self.base = base
        self.dim = dim
        self.scale = scale

    def forward(self, grid: tuple[int, int], like: Tensor) -> Float[Tensor, "n c"]:
        """The vectors of a grid, of the dtype and device of a tensor."""
        rows, columns = (base / size / self.scale for base, size in zip(self.base, grid, strict=True))
        dtype = torch.promote_types(like.dtype, torch.float32)
        positions = sinusoidal_positions(*grid, self.dim, spacing=(rows, columns), dtype=dtype, device=like.device)
        return positions.to(like.dtype)


class CroppedPositions(nn.Module):
    """The middle of one large grid, for any grid that is not larger: ``x_i = (i + (size - n) // 2) / scale``.

    Stable Diffusion 3, arXiv 2403.03206, section "Finetuning on High Resolutions". The vectors are stored, and not
    trained.

    Args:
        size: the numbers of rows and columns of the large grid.
        dim: width of the vectors.
        scale: divides the coordinates.
    """

    def __init__(self, size: tuple[int, int], dim: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.scale = scale
        vectors = sinusoidal_positions(*size, dim, spacing=(1 / scale, 1 / scale))
        self.vectors = nn.Parameter(vectors.to(torch.get_default_dtype()), requires_grad=False)

    def forward(self, grid: tuple[int, int], like: Tensor) -> Float[Tensor, "n c"]:
        """The vectors of a grid, of the dtype of a tensor.

        Raises:
            ValueError: for a grid that is larger.
        """
        top, left = (whole - part for whole, part in zip(self.size, grid, strict=True))
        if top < 0 or left < 0:
            raise ValueError(
                f"x has {grid[0]} x {grid[1]} patches, but the network has positions for at most {self.size[0]} x "
                f"{self.size[1]}; build it with a larger max_size"
            )
        rows, columns = slice(top // 2, top // 2 + grid[0]), slice(left // 2, left // 2 + grid[1])
        return self.vectors.view(*self.size, -1)[rows, columns].flatten(0, 1).to(like.dtype)


class RotaryPositions(nn.Module):
    """Rotates q and k by their position in a grid, so that their product depends on the difference of positions alone.

    ``[a cos - b sin, a sin + b cos]`` for the halves a and b of each head's vector, with the angles ``x f_i`` for the
    first half of the pairs and ``y f_i`` for the second, and the frequencies of ``sinusoidal_positions``. RoFormer,
    arXiv 2104.09864, section 3.2.2, for each coordinate. It has no parameters.

    Args:
        grid: the numbers of rows and columns.
        dim: width of a head, which four divides.
    """

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        sinusoidal_positions(1, 1, dim)  # refuses other widths
        self.grid = grid

    def forward(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        positions = sinusoidal_positions(*self.grid, x.shape[-1], dtype=dtype, device=x.device)
        sin, cos = positions.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(2).unbind(1)
        a, b = x.to(dtype).chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
