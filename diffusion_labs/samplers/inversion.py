"""From an image to the noise that a deterministic sampler makes it from."""

from itertools import pairwise

import torch
from torch import Tensor

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.samplers.norm import norm
from diffusion_labs.samplers.probability_flow import amplitude
from diffusion_labs.samplers.sampler import Estimate, Sampler, check_eval_mode
from diffusion_labs.schedules.noise_level import NoiseLevel


@torch.no_grad()
def invert(
    sampler: Sampler, x0: Tensor, conditional_inputs: ConditionalInputs | None = None, *, refinements: int = 0
) -> Tensor:
    """The noise from which ``sampler`` draws ``x0``: the probability flow forwards, by the sampler's own steps.

    With ``DDIMSampler`` it is DDIM inversion (DDIM, arXiv 2010.02502, Sec. 5.4): each step goes from s to the
    noisier t by the formula of the way back, with the estimates at s. That is as accurate as the solver.
    ``refinements`` make it the inverse of the sampler's own step, by the fixed point
    ``x_t <- x_t + k (x_s - step(x_t))``, ``k = (alpha_t^2 + sigma_t^2) / (alpha_t alpha_s + sigma_t sigma_s)``, where
    k is halved for a sample that would come back farther away.

    The last step of sampling removes what noise is left, so an image comes back to within the noise of the
    schedule's first time, and to within what the model holds for noise in it.

    Args:
        sampler: one with no memory of past steps and no fresh noise: ``DDIMSampler`` at eta = 0, ``HeunSampler``,
            ``DPM2Sampler``, ``DPMSolverPP2SSampler``, ``AdaptiveSampler``. Its grid is used backwards.
        x0: clean data, ``[b, c, ...]``.
        conditional_inputs: tensors by name, passed to the model.
        refinements: iterations of the fixed point in each step, each at the price of the step.

    Returns:
        x at the first time of the sampler's grid, ``[b, c, ...]``.

    Raises:
        ValueError: if the sampler draws noise or keeps a history, and so has no inverse; in train mode.

    Example:
        >>> noise = invert(sampler, image, {"class": cat})
        >>> edited = sampler(noise, conditional_inputs={"class": dog})
    """

    def denoise(x: Tensor, level: NoiseLevel) -> Estimate:
        return sampler.denoise(x, level, conditional_inputs)

    def step(x: Tensor, t: NoiseLevel, s: NoiseLevel) -> Tensor:
        x, past = sampler.step(x, t, s, None, denoise, no_noise)
        if past is not None:
            raise ValueError(f"{type(sampler).__name__} uses past steps, so it has no inverse; invert with DDIMSampler")
        return x

    def no_noise(*_: NoiseLevel) -> Tensor:
        raise ValueError(f"{type(sampler).__name__} draws noise, so it has no inverse; invert with DDIMSampler")

    def refine(x: Tensor, xs: Tensor, t: NoiseLevel, s: NoiseLevel) -> Tensor:
        if refinements == 0:
            return x
        scale = torch.ones_like(norm(xs)) * (amplitude(t) ** 2 / (t.alpha * s.alpha + t.sigma * s.sigma))
        residual = xs - step(x, t, s)
        for _ in range(refinements):
            candidate = x + scale * residual
            rest = xs - step(candidate, t, s)
            nearer = norm(rest) < norm(residual)
            x, residual = torch.where(nearer, candidate, x), torch.where(nearer, rest, residual)
            scale = torch.where(nearer, scale, scale / 2)
        return x

    check_eval_mode(sampler)
    levels = sampler.schedule.levels(sampler.schedule.on(x0.device, sampler.times().flip(0)))
    first = levels[0]
    estimate = denoise((first.alpha * x0).to(x0.dtype), first)
    x = first.alpha * x0 + first.sigma * estimate.eps
    for s, t in pairwise(levels):
        x = refine(step(x, s, t), x, t, s)
    return x
