"""Gaussian data whose pixels are correlated, with its exact denoiser and its conditionals in closed form."""

import torch
from torch import Tensor, nn

import diffusion_labs as dl


class CorrelatedGaussian(nn.Module):
    """The exact denoiser of N(mean, covariance): ``x0 = mean + alpha C (alpha^2 C + sigma^2 I)^-1 (xt - alpha mean)``.

    Args:
        predictor: what to predict.
        mean: ``[d]``, for samples ``[b, 1, d, 1]``.
        covariance: ``[d, d]``.
    """

    def __init__(self, predictor: dl.Predictor, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.predictor = predictor
        self.mean = mean
        self.eigenvalues, self.eigenvectors = torch.linalg.eigh(covariance)

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: object = None) -> dl.DiffusionOutput:
        flat = x.flatten(1)
        level = self.predictor.schedule.at(timestep, flat)
        gain = level.alpha * self.eigenvalues / (level.alpha**2 * self.eigenvalues + level.sigma**2)
        residual = (flat - level.alpha * self.mean) @ self.eigenvectors
        x0 = self.mean + (gain * residual) @ self.eigenvectors.T
        return dl.DiffusionOutput(self.predictor.prediction_of(x0.to(flat.dtype), flat, timestep).reshape(x.shape))


def conditional(
    mean: Tensor, covariance: Tensor, A: Tensor, measurement: Tensor, noise_std: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x0 given ``A x0 + noise_std * noise``."""
    gain = covariance @ A.T @ torch.linalg.inv(A @ covariance @ A.T + noise_std**2 * torch.eye(len(A)).double())
    return mean + gain @ (measurement - A @ mean), covariance - gain @ A @ covariance


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[d]`` and covariance ``[d, d]`` of samples ``[n, ...]``."""
    flat = x.flatten(1)
    return flat.mean(0), flat.T.cov()
