"""Transforms: modules from a dict of data to an updated dict."""

from diffusion_labs.transforms.diffusion_steps import ComputeTarget, ComputeV, RandomDiffusionSteps
from diffusion_labs.transforms.normalize_images import NormalizeImages
from diffusion_labs.transforms.random_inpainting_mask import RandomInpaintingMask
from diffusion_labs.transforms.super_resolution_transform import SuperResolutionTransform
from diffusion_labs.transforms.transform import Transform

__all__ = [
    "ComputeTarget",
    "ComputeV",
    "NormalizeImages",
    "RandomDiffusionSteps",
    "RandomInpaintingMask",
    "SuperResolutionTransform",
    "Transform",
]
