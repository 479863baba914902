"""Normalisations that keep their precision in half precision networks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs import kernels


class GroupNorm(nn.GroupNorm):
    """Group normalisation (arXiv 1803.08494, Eq. 1) computed in float32 or better, by a faster kernel if there is one.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with mean and variance over the positions
    and the channels of one group. Statistics over a large image overflow in float16 and round badly
    in bfloat16, so both are computed in float32; float64 stays float64. The output has the dtype of x.

    Args:
        num_channels: channels of the input ``[b, num_channels, *size]``.
        num_groups: the number of groups that the channels are divided into.
        eps: added to the variance.

    Raises:
        ValueError: if the groups do not divide the channels.
    """

    def __init__(self, num_channels: int, *, num_groups: int = 32, eps: float = 1e-5) -> None:
        if num_groups < 1 or num_channels % num_groups != 0:
            raise ValueError(
                f"num_groups ({num_groups}) must divide num_channels ({num_channels}); choose model_channels that are "
                "a multiple of num_groups, or a num_groups that divides the channels of every level, and the sum of "
                "two neighbouring levels"
            )
        super().__init__(num_groups, num_channels, eps=eps)

    def forward(self, input: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        if kernels.fits_norm(input, self.weight, self.bias):
            return kernels.norm(input, self.weight, self.bias, self.num_groups, self.eps)

        dtype = torch.promote_types(input.dtype, torch.float32)
        y = F.group_norm(input.to(dtype), self.num_groups, self.weight.to(dtype), self.bias.to(dtype), self.eps)
        return y.to(input.dtype)


class GroupNormSiLU(GroupNorm):
    """``dropout(SiLU(norm(x) * (1 + scale) + shift))``, by one faster kernel where there is one: see ``kernels``.

    Args:
        num_channels: see ``GroupNorm``.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
        dropout: rate of dropout.
    """

    def __init__(self, num_channels: int, *, num_groups: int = 32, eps: float = 1e-5, dropout: float = 0.0) -> None:
        super().__init__(num_channels, num_groups=num_groups, eps=eps)
        self.dropout = dropout

    def forward(
        self,
        input: Float[Tensor, "b c *d"],
        scale: Float[Tensor, "b c"] | None = None,
        shift: Float[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c *d"]:
        """Normalise, scale, shift and activate; scale and shift are 0 by default."""
        if kernels.fits_norm(input, self.weight, self.bias, scale, shift):
            factor: Tensor = self.weight
            offset: Tensor = self.bias
            if scale is not None:
                amplified = 1 + scale
                factor, offset = factor * amplified, offset * amplified
            if shift is not None:
                offset = offset + shift
            dropout = self.dropout if self.training else 0.0
            return kernels.norm(input, factor, offset, self.num_groups, self.eps, silu=True, dropout=dropout)

        y = super().forward(input)
        if scale is not None:
            y = y * (1 + over_positions(scale, y))
        if shift is not None:
            y = y + over_positions(shift, y)
        return F.dropout(F.silu(y), self.dropout, self.training)


def over_positions(vector: Float[Tensor, "b e"], x: Float[Tensor, "b c *d"]) -> Tensor:
    """View ``[b, e]`` so that it broadcasts over the positions of x: ``[b, e, 1, ...]``."""
    return vector.reshape(*vector.shape, *[1] * (x.dim() - 2))


class RMSNorm(nn.Module):
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last dimension (arXiv 1910.07467, Eq. 4).

    Computed in float32; float64 stays float64. The output has the dtype of x.

    Args:
        dim: width of the input ``[..., dim]``.
        eps: added to the mean of the squares.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        y = F.rms_norm(x.to(dtype), self.weight.shape, self.weight.to(dtype), self.eps)
        return y.to(x.dtype)
