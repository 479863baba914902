"""Transforms: modules from a dict of data to an updated dict."""

from diffusion_labs.transforms.bsr_degradation import BSRDegradation
from diffusion_labs.transforms.diffusion_steps import ComputeTarget, ComputeV, RandomDiffusionSteps
from diffusion_labs.transforms.normalize_images import NormalizeImages
from diffusion_labs.transforms.random_crop import RandomCrop
from diffusion_labs.transforms.random_inpainting_mask import RandomInpaintingMask
from diffusion_labs.transforms.super_resolution_transform import SuperResolutionTransform
from diffusion_labs.transforms.transform import Transform

__all__ = [
    "BSRDegradation",
    "ComputeTarget",
    "ComputeV",
    "NormalizeImages",
    "RandomCrop",
    "RandomDiffusionSteps",
    "RandomInpaintingMask",
    "SuperResolutionTransform",
    "Transform",
]
