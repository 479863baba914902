"""One point of the noising process, and the Gaussian between two of them.

The formulas use only arithmetic, so the same lines serve the sampling loop, where a coefficient is
a Python float (float64, no kernel launch, no synchronisation), and training, where it is a float64
tensor ``[b, 1, ..., 1]``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Coefficient = Tensor | float


class NoiseLevel(NamedTuple):
    """Signal and noise at a time: ``xt = alpha * x0 + sigma * noise``.

    Attributes:
        t: the time, as the network sees it: ``[]`` or ``[b]``.
        alpha: scale of the data.
        sigma: standard deviation of the noise.
        log_snr: ``log(alpha^2 / sigma^2)``, infinite for clean data and for pure noise.
    """

    t: Tensor
    alpha: Coefficient
    sigma: Coefficient
    log_snr: Coefficient


def weighted_sum(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """``a x + b y``, with two kernels in place of three where b is a number, and none for a weight of 0 or 1.

    Beside a small model, or on a GPU that waits for Python, a step of a sampler costs what it takes to launch its
    kernels. The result may be x or y itself.
    """
    if isinstance(a, float) and a == 0:
        return y if isinstance(b, float) and b == 1 else b * y
    scaled = x if isinstance(a, float) and a == 1 else a * x
    if not isinstance(b, float):
        return scaled + b * y
    return scaled if b == 0 else torch.add(scaled, y, alpha=b)


class Transition(NamedTuple):
    """q(x_t | x_s) = N(alpha x_s, variance I) for s < t."""

    alpha: Coefficient
    variance: Coefficient


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(from_xt x_t + from_x0 x_0, small I).

    Attributes:
        from_xt: coefficient of x_t in the mean.
        from_x0: coefficient of x_0 in the mean.
        small: the variance if x_0 is known, the lower bound of that of p(x_s | x_t).
        large: the variance of q(x_t | x_s), the upper bound (beta_t in DDPM, arXiv 2006.11239, 3.2).
    """

    from_xt: Coefficient
    from_x0: Coefficient
    small: Coefficient
    large: Coefficient


def transition(s: NoiseLevel, t: NoiseLevel) -> Transition:
    """The noising from s to t (Variational Diffusion Models, arXiv 2107.00630, Eq. 20, App. A.1).

    ``alpha_ts = alpha_t / alpha_s``; ``sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2``
    """
    alpha = t.alpha / s.alpha
    return Transition(alpha, t.sigma**2 * (1 - remaining(s, t)))


def posterior(s: NoiseLevel, t: NoiseLevel) -> Posterior:
    """The denoising from t to s, with x_0 known (arXiv 2107.00630, App. A.2).

    With ``r = SNR_t / SNR_s``: the mean is ``(alpha_t / alpha_s) (sigma_s / sigma_t)^2 x_t
    + alpha_s (1 - r) x_0`` and the variance ``sigma_s^2 (1 - r)``. Both stay finite at zero terminal
    SNR (alpha_t = 0) and for clean data (sigma_s = 0).
    """
    r = remaining(s, t)
    return Posterior(
        from_xt=t.alpha / s.alpha * (s.sigma / t.sigma) ** 2,
        from_x0=s.alpha * (1 - r),
        small=s.sigma**2 * (1 - r),
        large=t.sigma**2 * (1 - r),
    )


def remaining(s: NoiseLevel, t: NoiseLevel) -> Coefficient:
    """The share of the signal-to-noise ratio that is left when s has become t: ``SNR_t / SNR_s``."""
    return (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2
