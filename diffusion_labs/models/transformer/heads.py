"""From tokens to the patches of the output."""

import torch
from torch import Tensor, nn

from diffusion_labs.keeping import stepped
from diffusion_labs.layers import modulate, zero_init
from diffusion_labs.output import DiffusionOutput


class PatchHead(nn.Module):
    """``linear(norm(h) * (1 + scale) + shift)`` from tokens to the patches of the prediction.

    The linear layer starts at zero. DiT, arXiv 2212.09748, section 3.2.

    Args:
        dim: width of the tokens.
        out_channels: channels of the prediction.
        patch_size: the side of a patch.
        modulation: from the embedding to shift and scale, ``[b, 2 * dim]``.
        eps: added to the variance by the norm.
    """

    def __init__(
        self, dim: int, out_channels: int, *, patch_size: int, modulation: nn.Module, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.modulation = modulation
        self.norm = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.linear = zero_init(nn.Linear(dim, patch_size**2 * out_channels))

    def forward(self, h: Tensor, embedding: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> DiffusionOutput:
        """Project tokens ``[b, n, dim]`` of a grid of patches to an output of the given dtype."""
        return DiffusionOutput(self.project(h, embedding, grid).to(dtype))

    def project(self, h: Tensor, embedding: Tensor, grid: tuple[int, int]) -> Tensor:
        shift, scale = stepped(self.modulation, embedding).chunk(2, dim=1)
        return to_pixels(self.linear(modulate(self.norm(h), shift, scale)), grid, self.patch_size)


class LearnedVariancePatchHead(PatchHead):
    """A head that also predicts the variance: ``variance_value = (v_raw + 1) / 2``.

    ``v_raw`` in [-1, 1], the second half of the channels, interpolates the log-variance between its bounds (Improved
    DDPM, arXiv 2102.09672, Eq. 15).

    Args:
        dim: see ``PatchHead``.
        out_channels: channels of the prediction; the linear layer has twice as many.
        patch_size: see ``PatchHead``.
        modulation: see ``PatchHead``.
        eps: see ``PatchHead``.
    """

    def __init__(
        self, dim: int, out_channels: int, *, patch_size: int, modulation: nn.Module, eps: float = 1e-6
    ) -> None:
        super().__init__(dim, 2 * out_channels, patch_size=patch_size, modulation=modulation, eps=eps)

    def forward(self, h: Tensor, embedding: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> DiffusionOutput:
        """Project tokens ``[b, n, dim]`` of a grid of patches to an output of the given dtype."""
        prediction, v_raw = self.project(h, embedding, grid).chunk(2, dim=1)
        # FSDP2's hooks are lost on outputs that are views and then changed in place: hence the clone
        return DiffusionOutput(prediction.clone().to(dtype), variance_value=((v_raw + 1) / 2).to(dtype))


def to_pixels(patches: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """From ``[b, rows * columns, side * side * c]``, in each of which the channel is fastest, to ``[b, c, h, w]``."""
    channels = patches.shape[2] // side**2
    pixels = patches.reshape(len(patches), *grid, side, side, channels).permute(0, 5, 1, 3, 2, 4)
    return pixels.flatten(4).flatten(2, 3)
