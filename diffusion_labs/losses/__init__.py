"""Losses: from the output of a network, and the batch it was given, to a scalar."""

from diffusion_labs.losses.diffusion_hybrid_loss import DiffusionHybridLoss
from diffusion_labs.losses.feature_loss import FeatureLoss, PerceptualLoss
from diffusion_labs.losses.importance_mean import ImportanceMean
from diffusion_labs.losses.lpips import LPIPS
from diffusion_labs.losses.simple_loss import SimpleLoss
from diffusion_labs.losses.vlb_loss import VLBLoss, discretized_gaussian_nll, gaussian_kl, gaussian_nll
from diffusion_labs.losses.weighting import EDM, P2, SNR, MinSNR, Sigmoid, Uniform

__all__ = [
    "EDM",
    "LPIPS",
    "P2",
    "SNR",
    "DiffusionHybridLoss",
    "FeatureLoss",
    "ImportanceMean",
    "MinSNR",
    "PerceptualLoss",
    "Sigmoid",
    "SimpleLoss",
    "Uniform",
    "VLBLoss",
    "discretized_gaussian_nll",
    "gaussian_kl",
    "gaussian_nll",
]
