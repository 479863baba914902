"""The Euler-Maruyama method for the reverse SDE."""

from typing import Any

from torch import Tensor

from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel, remaining


class EulerMaruyamaSampler(Sampler):
    """Euler-Maruyama, or "reverse diffusion" (Score SDE, arXiv 2011.13456, App. E). First order, one call a step.

    ``x_s = (2 - alpha_ts) x_t + sigma_ts^2 score + sigma_ts noise`` with ``score = -eps / sigma_t``,
    ``alpha_ts = alpha_t / alpha_s`` and ``sigma_ts^2 = sigma_t^2 (1 - r)``, ``r = SNR_t / SNR_s``, which is
    ``(2 - alpha_ts) alpha_t x0 + sigma_t (1 + r - alpha_ts) eps + sigma_t sqrt(1 - r) noise``.

    Drift and noise are those at t for the whole step. ``DDPMSampler`` integrates both exactly, for an x0 that is held
    constant, and needs fewer steps; from pure noise (alpha_t = 0), where this rule has no limit, its step is taken.
    Arguments as ``Sampler``'s.
    """

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        if t.alpha == 0:
            return s.alpha * x0 + s.sigma * noise(t, s), past

        alpha, r = t.alpha / s.alpha, remaining(s, t)
        mean = (2 - alpha) * t.alpha * x0 + t.sigma * (1 + r - alpha) * eps
        return mean + t.sigma * (1 - r) ** 0.5 * noise(t, s), past
