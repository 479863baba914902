"""Predictor-corrector sampling."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.euler_maruyama import EulerMaruyamaSampler
from diffusion_labs.samplers.norm import norm
from diffusion_labs.samplers.sampler import Denoise, Noise, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel
from diffusion_labs.schedules.schedule import Schedule


class PredictorCorrectorSampler(EulerMaruyamaSampler):
    """``EulerMaruyamaSampler``, then Langevin steps at the new level (Score SDE, arXiv 2011.13456, App. G).

    A correction follows ``dx = score dtau + sqrt(2) dw`` for a time of ``2 (ratio |noise| / |score|)^2``, in which
    the signal is about ``ratio`` times the noise (Alg. 4; Alg. 5 has a factor near 1 more). With ``score = -eps /
    sigma_s`` and ``a = 2 (ratio |noise| / |eps|)^2`` it is ``alpha_s x0 + sigma_s (e^(-a) eps + sqrt(1 - e^(-2a))
    noise)``: the exact solution for an x0 held constant, where the paper has ``(1 - a) eps + sqrt(2a) noise``, the
    same for small a, but noisier than the level for large ones. The norms are those of each sample, so that its image
    does not depend on its batch; in few dimensions d this widens the law, since small samples move more, to
    ``(d + 2) / d`` of its variance at most. Stochastic, first order, ``1 + corrections`` calls a step.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        corrections: Langevin steps at each noise level, at least 0.
        ratio: of signal to noise in them (the paper's r), at least 0.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        corrections: int = 1,
        ratio: float = 0.16,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if not isinstance(corrections, int) or corrections < 0 or not ratio >= 0:
            raise ValueError(
                f"corrections ({corrections}), a whole number, and ratio ({ratio}) must be at least 0, which corrects "
                "nothing"
            )
        super().__init__(model, schedule, predictor, **options)
        self.corrections = corrections
        self.ratio = ratio

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        xs, past = super().step(xt, t, s, past, denoise, noise)
        for _ in range(self.corrections):
            x0, eps, _ = denoise(xs, s)
            fresh = noise()
            a = 2 * (self.ratio * norm(fresh) / norm(eps)).square()
            xs = s.alpha * x0 + s.sigma * (torch.exp(-a) * eps + torch.sqrt(-torch.expm1(-2 * a)) * fresh)
        return xs, past
