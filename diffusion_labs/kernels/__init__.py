"""Faster operators for the CPU, and whether they suit; without them PyTorch's own are used. See docs/kernels.md."""

import torch

from diffusion_labs.kernels.attention import attention
from diffusion_labs.kernels.convolution import convolution_3x3
from diffusion_labs.kernels.normalisation import fits_norm, norm
from diffusion_labs.kernels.pointwise import pointwise_convolution
from diffusion_labs.kernels.resampling import average_pool, nearest_upsample

PRODUCTS = (  # what takes long to compute again
    torch.ops.diffusion_labs.winograd_convolution.default,
    torch.ops.diffusion_labs.matrix_product.default,
)

__all__ = [
    "PRODUCTS",
    "attention",
    "average_pool",
    "convolution_3x3",
    "fits_norm",
    "nearest_upsample",
    "norm",
    "pointwise_convolution",
]
