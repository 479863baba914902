"""How well a model denoises, at each of several noise levels."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.modes import evaluating
from diffusion_labs.randomness import KeyedGenerator, sample_keys
from diffusion_labs.samplers import Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel


class LossPerLevel(NamedTuple):
    """The errors of a model on some data.

    All that training minimises is a weighted mean of these: with ``y = a x0 + b noise``, the error of y is
    ``((a sigma - b alpha) / sigma)^2`` times that of x0. So models of different predictors, schedules and weightings
    can be compared by them, at equal log-SNR.

    Attributes:
        log_snr: of the levels, decreasing, ``[k]``.
        x0: mean squared error of the estimated clean data, of each sample, ``[k, n]``.
        noise: of the estimated noise: ``alpha^2 / sigma^2`` times that of x0, ``[k, n]``.
    """

    log_snr: Float[Tensor, " k"]
    x0: Float[Tensor, "k n"]
    noise: Float[Tensor, "k n"]


@torch.no_grad()
def loss_per_level(
    sampler: Sampler,
    x0: Tensor,
    conditional_inputs: ConditionalInputs | None = None,
    *,
    levels: int = 10,
    low: float = -8.0,
    high: float = 8.0,
    seed: int = 0,
    first: int = 0,
    batch_size: int = 64,
) -> LossPerLevel:
    """The errors at fixed noise levels, equally far from each other in log-SNR, in eval mode.

    The noise of a sample is a function of the seed, the level and its place alone: the figures of two models are of the
    same noisy data, and those of parts of a data set are those of the whole.

    Args:
        sampler: holds the model, its predictor and schedule; what kind it is does not matter.
        x0: data that the model was not trained on, as it gets them in training, ``[n, c, ...]``.
        conditional_inputs: tensors by name, one entry for each sample. A guided model errs more: set its scale to 1.
        levels: how many. Those that the schedule does not reach are moved to its ends.
        low: log-SNR of the last level, the noisiest.
        high: log-SNR of the first level.
        seed: of the noise.
        first: place of the first sample in the data set, of which this is a part.
        batch_size: samples at once.

    Raises:
        ValueError: for less than one level, an empty range of levels, or no data.
    """
    if levels < 1 or not low < high or not len(x0):
        raise ValueError(
            f"levels ({levels}) must be at least 1, low ({low}) below high ({high}), and samples ({len(x0)}) at least 1"
        )
    schedule = sampler.schedule
    wanted = schedule.on(x0.device, torch.linspace(high, low, levels, dtype=torch.float64))
    times = schedule.snap(schedule.time(wanted).clamp(schedule.first, schedule.terminal))
    keys = sample_keys(seed, 0, first + torch.arange(len(x0), device=x0.device))
    errors: list[Tensor] = []

    def measure(level: NoiseLevel, place: int, chosen: Tensor) -> Tensor:
        x = x0[chosen]
        noise = schedule.sample_noise(x, KeyedGenerator(keys[chosen], place))
        xt = schedule.q_sample(x, noise, level.t.expand(len(x)))
        given = None if conditional_inputs is None else {k: v[chosen] for k, v in conditional_inputs.items()}
        estimate = sampler.denoise(xt, level, given).x0.cpu()
        return (estimate.double() - x.cpu().double()).square().flatten(1).mean(1)

    with evaluating(sampler):
        for place, level in enumerate(schedule.levels(times)):
            for chosen in torch.arange(len(x0), device=x0.device).split(batch_size):
                errors.append(measure(level, place, chosen))
    log_snr, error = schedule.log_snr(times).cpu().double(), torch.cat(errors).reshape(levels, len(x0))
    return LossPerLevel(log_snr, error, log_snr.exp()[:, None] * error)
