"""Faster operators for the CPU, and whether they suit; without them PyTorch's own are used. See docs/kernels.md."""

import torch

from diffusion_labs.kernels.convolution import convolution_3x3
from diffusion_labs.kernels.normalisation import fits_norm_silu, norm_silu

CONVOLUTION = torch.ops.diffusion_labs.winograd_convolution.default

__all__ = ["CONVOLUTION", "convolution_3x3", "fits_norm_silu", "norm_silu"]
