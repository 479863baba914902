"""A whole sampling loop as tables of numbers.

All but a few solvers are linear: each point at which the network is called is a weighted sum of the points, estimates
and noises before it, and the weights depend on no data. Then the loop is the same few operations again and again, with
other numbers from a table.
"""

import copy
import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.predictors.predictor import Denoised
from diffusion_labs.samplers.sampler import Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel

MOST_CALLS = 10_000
LONGEST_WINDOW = 16
TOLERANCE = 1e-9  # of sums in float64


class LinearSteps(NamedTuple):
    """The loop of a sampler: ``xt_0 = first . (x, noises)``, ``xt_(k+1) = sum_i weights_ki . terms_(k-i)``.

    The terms of call k of the network are ``(xt_k, x0_k, eps_k, noises)``, with as many noises as are drawn between
    two calls at most. The last xt is the sample.

    Attributes:
        times: of the calls, ``[k]``.
        levels: alpha, sigma and log-SNR, float64 ``[k, 3]``.
        first: float64 ``[1 + n]``, with n noises drawn before the first call.
        weights: float64 ``[k, window, 3 + noises]``.
    """

    times: Tensor
    levels: Tensor
    first: Tensor
    weights: Tensor


def linear_steps(sampler: Sampler, *, learns_variance: bool = False) -> LinearSteps:
    """The tables of a sampler's loop, found by running it on the vectors of a basis in place of images.

    Args:
        sampler: of any solver that is linear in points, estimates and noises.
        learns_variance: whether its model returns a ``variance_value``.

    Raises:
        ValueError: if the solver is not linear.
    """
    name = type(sampler).__name__
    counted = _Run(sampler, torch.zeros(1, 1, dtype=torch.float64), learns_variance)
    size = 1 + 2 * len(counted.times) + sum(counted.draws)
    basis = torch.eye(size, dtype=torch.float64)
    mixed = torch.randn(size, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run, again = _Run(sampler, basis, learns_variance), _Run(sampler, mixed, learns_variance)
    if not run.draws == again.draws == counted.draws or not _near(run.points @ mixed, again.points):
        raise ValueError(
            f"{name} weighs its estimates by what they are, so that its loop is no table of numbers; take another "
            "solver"
        )
    first, terms = _terms(basis, run.points, run.draws)
    levels = torch.tensor([level[1:] for level in run.levels], dtype=torch.float64)
    for window in range(1, LONGEST_WINDOW + 1):
        weights = _weights(run.points[1:], terms, window)
        if weights is not None:
            return LinearSteps(torch.stack(run.times), levels, first @ run.points[0], weights)
    raise ValueError(f"a step of {name} uses what was more than {LONGEST_WINDOW} calls of the network ago")


class _Run(nn.Module):
    """The loop of a sampler on given vectors: x, and then each estimate and noise in the order they are asked for.

    It stands for the model, the predictor and the random numbers of the sampler.
    """

    def __init__(self, sampler: Sampler, vectors: Tensor, learns_variance: bool) -> None:
        super().__init__()
        self.vectors = itertools.chain(vectors, itertools.repeat(torch.zeros_like(vectors[0])))
        # A solver that uses it is not linear: the numbers are no numbers
        self.variance = torch.tensor(torch.nan, dtype=torch.float64) if learns_variance else None
        self.called, self.times, self.levels, self.draws = list[Tensor](), list[Tensor](), list[NoiseLevel](), [0]
        copied = copy.copy(sampler)
        vars(copied).update(_modules={**sampler._modules, "model": self, "predictor": self}, progress_bar=False)
        sample = copied(next(self.vectors)[None], generator=self.noise)
        self.points = torch.cat([*self.called, sample])

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None) -> DiffusionOutput:
        """The model: what it is called with is what is asked."""
        if len(self.times) == MOST_CALLS:
            raise ValueError(f"the solver calls the network more than {MOST_CALLS} times")
        self.called.append(x)
        self.times.append(timestep[0])
        self.draws.append(0)
        return DiffusionOutput(x, self.variance)

    def denoise_at(self, prediction: Tensor, xt: Tensor, level: NoiseLevel) -> Denoised:
        """The predictor."""
        self.levels.append(level)
        return Denoised(next(self.vectors)[None], next(self.vectors)[None])

    def noise(self, x: Tensor, t: NoiseLevel | None, s: NoiseLevel | None) -> Tensor:
        """The random numbers."""
        self.draws[-1] += 1
        return next(self.vectors)[None]


def _terms(basis: Tensor, points: Tensor, draws: list[int]) -> tuple[Tensor, Tensor]:
    """``(x, noises)`` before the first call, and the terms of each call, ``[k, 3 + noises, size]``."""
    before, *after = draws
    first, rest = basis[: 1 + before], basis[1 + before :]
    terms = rest.new_zeros(len(after), 3 + max(after), rest.shape[-1])
    terms[:, 0] = points[:-1]
    for k, drawn in enumerate(after):
        terms[k, 1 : 3 + drawn], rest = rest[: 2 + drawn], rest[2 + drawn :]
    return first, terms


def _weights(points: Tensor, terms: Tensor, window: int) -> Tensor | None:
    """Weights of the terms of the last calls that give the next points; ``None`` if there are none."""
    weights = terms.new_zeros(len(terms), window, terms.shape[1])
    for k, point in enumerate(points):
        known = terms[max(0, k + 1 - window) : k + 1].flip(0)  # the last call first
        columns = known.flatten(0, 1).T
        found = torch.linalg.lstsq(columns, point[:, None], driver="gelsd").solution
        if not _near(columns @ found, point[:, None]):
            return None
        weights[k, : len(known)] = found.reshape(known.shape[:2])
    return weights


def _near(actual: Tensor, expected: Tensor) -> bool:
    return bool(((actual - expected).abs() <= TOLERANCE * (1 + expected.abs().max())).all())
