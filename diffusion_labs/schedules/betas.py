"""Beta tables for ``DiscreteGaussianSchedule``, in float64."""

import math

import torch
from torch import Tensor


def linear_beta_schedule(steps: int = 1000, start: float | None = None, end: float | None = None) -> Tensor:
    """Betas that grow linearly (DDPM, arXiv 2006.11239, Sec. 4).

    Args:
        steps: number of steps T.
        start: first beta; 1e-4, scaled by 1000 / T, if ``None``.
        end: last beta; 0.02, scaled by 1000 / T, if ``None`` (Improved DDPM's rule).

    Returns:
        ``[T]``, float64.
    """
    start = 1e-4 * 1000 / steps if start is None else start
    end = 0.02 * 1000 / steps if end is None else end
    if end > 1 and steps > 1:
        raise ValueError(f"the last beta is {end:.3g}, above 1, with steps ({steps}); give at least 20, or an end")
    return _linspace(start, end, steps)


def scaled_linear_beta_schedule(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Betas whose square roots grow linearly (Latent Diffusion's "linear"; Stable Diffusion's defaults)."""
    return _linspace(math.sqrt(start), math.sqrt(end), steps) ** 2


def quadratic_beta_schedule(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """The curve of ``scaled_linear_beta_schedule`` between DDPM's betas (DDIM's "quad")."""
    return scaled_linear_beta_schedule(steps, start, end)


def sigmoid_beta_schedule(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Betas on a sigmoid from -6 to 6 (GeoDiff, arXiv 2203.02923)."""
    return _linspace(-6, 6, steps).sigmoid() * (end - start) + start


def cosine_beta_schedule(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas of a cosine alpha (Improved DDPM, arXiv 2102.09672, Eq. 17).

    ``alpha(t)^2 = cos^2((t/T + offset) / (1 + offset) * pi/2)``, each beta at most ``max_beta``.
    """
    angle = (_linspace(0, 1, steps + 1) + offset) / (1 + offset) * math.pi / 2
    alpha_squared = angle.cos() ** 2
    return (1 - alpha_squared[1:] / alpha_squared[:-1]).clamp(max=max_beta)


def rescale_zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas of the same shape whose last step leaves no signal (arXiv 2305.08891, Alg. 1).

    alpha is shifted and scaled so that its first value stays and its last is 0. Train with v or
    clean-data prediction: noise prediction says nothing where there is only noise.
    """
    alpha = (1 - betas.double()).cumprod(0).sqrt()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha_squared = alpha**2
    return 1 - alpha_squared / torch.cat([alpha_squared.new_ones(1), alpha_squared[:-1]])


def _linspace(start: float, end: float, steps: int) -> Tensor:
    if steps < 2:
        raise ValueError(f"steps ({steps}) must be at least 2")
    return torch.linspace(start, end, steps, dtype=torch.float64, device="cpu")
