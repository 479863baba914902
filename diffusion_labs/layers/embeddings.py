"""Embeddings of the time."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn


def sinusoidal_embedding(
    timestep: Shaped[Tensor, " b"],
    dim: int,
    *,
    max_period: float | int = 10_000,
    shift: int = 0,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "b {dim}"]:
    """Cosines and sines of the time, at geometrically spaced frequencies.

    ``[cos(t f_0), ..., cos(t f_{h-1}), sin(t f_0), ..., sin(t f_{h-1})]`` with ``h = dim // 2`` and
    ``f_i = scale exp(-ln(max_period) i / (h - shift))``; an odd ``dim`` gets a last column of zeros.
    Attention Is All You Need (arXiv 1706.03762, section 3.5), with the cosines first as in ADM.

    Computed in float32 or better whatever the dtype of ``timestep``: bfloat16 cannot tell time 999
    from time 1000.

    Args:
        timestep: times, integer or floating, ``[b]``.
        dim: width of the embedding.
        max_period: the longest period, in units of ``2 pi`` time steps.
        shift: 0 (ADM, LDM, DiT), or 1, with which the last period is exactly ``max_period`` (DDPM).
        scale: multiplies the time. The shortest period is 2 pi, for steps 0, 1, ..., 999; with 1000, times in [0, 1]
            and EDM's c_noise are as far apart.
        dtype: compute in at least this precision.

    Returns:
        ``[b, dim]``, in the widest of float32, ``dtype`` and the dtype of ``timestep``.

    Raises:
        ValueError: if ``dim`` leaves no frequency, or ``shift`` no spacing.
    """
    half = dim // 2
    if half <= shift:
        raise ValueError(f"dim ({dim}) must be larger than 2 * (shift + 1), with shift={shift}; enlarge dim")
    dtype = torch.promote_types(torch.promote_types(torch.float32, dtype), timestep.dtype)

    index = torch.arange(half, device=timestep.device, dtype=dtype)
    frequencies = torch.exp(-math.log(max_period) * index / (half - shift))
    angles = scale * timestep.to(dtype)[:, None] * frequencies[None]

    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


class TimeEmbedding(nn.Module):
    """Sinusoids of the time, then ``Linear -> SiLU -> Linear``.

    The sinusoids are computed in float32 or better also in a bfloat16 network; the two linear
    layers run in the dtype of their weights, which is the dtype of the output.

    Args:
        frequency_dim: width of the sinusoidal embedding.
        embed_dim: width of the output.
        hidden_dim: width between the two layers; ``embed_dim`` by default.
        max_period: see ``sinusoidal_embedding``.
        shift: see ``sinusoidal_embedding``.
        scale: see ``sinusoidal_embedding``.
    """

    def __init__(
        self,
        frequency_dim: int,
        embed_dim: int,
        *,
        hidden_dim: int | None = None,
        max_period: float | int = 10_000,
        shift: int = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        hidden_dim = embed_dim if hidden_dim is None else hidden_dim
        self.frequency_dim = frequency_dim
        self.embed_dim = embed_dim
        self.max_period = max_period
        self.shift = shift
        self.scale = scale
        self.linear_in = nn.Linear(frequency_dim, hidden_dim)
        self.linear_out = nn.Linear(hidden_dim, embed_dim)

    def forward(self, timestep: Shaped[Tensor, " b"]) -> Float[Tensor, "b e"]:
        dtype = self.linear_in.weight.dtype
        features = sinusoidal_embedding(
            timestep, self.frequency_dim, max_period=self.max_period, shift=self.shift, scale=self.scale, dtype=dtype
        )
        return self.linear_out(F.silu(self.linear_in(features.to(dtype))))
