"""Noise that is one Brownian path, whatever the grid of times."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_labs.randomness import randn_like, seeded
from diffusion_labs.schedules.noise_level import NoiseLevel

RANGE = 40.0  # of log-SNR: sigma / alpha from 5e8 down to 2e-9
DEPTH = 18  # of the tree: levels closer than 80 / 2^18 in log-SNR share their noise


class BrownianNoise:
    """The noise of a stochastic sampler as increments of a Brownian motion B in signal-to-noise ratio.

    ``noise(t, s) = (B(SNR_s) - B(SNR_t)) / sqrt(SNR_s - SNR_t)``. The part of x_s that is made of noise is then
    ``(sigma_s^2 / alpha_s) (B(SNR_s) - B(SNR_t))`` in ``DDPMSampler`` and the SDE solvers, which is the solution of the
    reverse SDE driven by B: with more steps the same seed converges to one image, instead of to another with
    every number of steps.

    B is drawn where it is asked for, by bisection of the range of log-SNR (Levy's bridge; the virtual Brownian tree of
    Li et al., arXiv 2001.01328, Sec. 4), from random numbers keyed by seed and place. So it needs no memory of the
    path, and the sample of a seed does not depend on its batch.

    Args:
        seeds: one integer per sample.

    Example:
        >>> images = sampler(x, generator=BrownianNoise([5, 6, 7]))
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self.unrelated = seeded(self.seeds)
        self.nodes: dict[str, Tensor] = {}  # of the last path through the tree

    def __call__(self, x: Tensor, t: NoiseLevel | None = None, s: NoiseLevel | None = None) -> Tensor:
        """Standard normal noise like x, ``[b, ...]``: of the way from t to s, or unrelated to the path without them."""
        if len(x) != len(self.seeds):
            raise ValueError(f"BrownianNoise has {len(self.seeds)} seeds, but x has a batch of {len(x)}; give one each")
        if t is None or s is None:
            return randn_like(x, self.unrelated)
        low, high = (float(level.log_snr) for level in (t, s))
        increment = self.path(high, x) - self.path(low, x)
        return (increment / math.sqrt(snr(high) - snr(low))).to(x)

    def from_its_start(self) -> "BrownianNoise":
        """The noise of the same seeds, whatever was drawn from this one: each sampling begins with it."""
        return type(self)(self.seeds)

    def path(self, log_snr: float, x: Tensor) -> Tensor:
        """B at a log-SNR, for samples of the shape of x, ``[b, ...]``, float64, on the CPU."""
        if log_snr == -math.inf:
            return torch.zeros(x.shape, dtype=torch.float64, device="cpu")
        if not -RANGE < log_snr < RANGE:
            raise ValueError(f"log-SNR ({log_snr:.3g}) must be in ({-RANGE:g}, {RANGE:g}) for BrownianNoise")
        low, high, place = -RANGE, RANGE, "root"
        visited: dict[str, Tensor] = {}
        left = self._node(visited, "low", torch.zeros(()), math.sqrt(snr(low)), x)
        right = self._node(visited, "high", left, math.sqrt(snr(high) - snr(low)), x)
        for _ in range(DEPTH):
            middle = (low + high) / 2
            value = self._node(visited, place, *bridge(middle, low, high, left, right), x)
            if log_snr < middle:
                high, right, place = middle, value, place + "0"
            else:
                low, left, place = middle, value, place + "1"
        self.nodes = visited
        mean, std = bridge(log_snr, low, high, left, right)
        return mean + std * self._normal(place + " leaf", x)

    def _node(self, visited: dict[str, Tensor], place: str, mean: Tensor, std: float, x: Tensor) -> Tensor:
        """B at a node of the tree, given its neighbours: as it was if the last path came by, too."""
        known = self.nodes.get(place)
        visited[place] = mean + std * self._normal(place, x) if known is None or known.shape != x.shape else known
        return visited[place]

    def _normal(self, place: str, x: Tensor) -> Tensor:
        keys = (hashlib.blake2b(f"{seed} {place}".encode(), digest_size=8).digest() for seed in self.seeds)
        generators = seeded([int.from_bytes(key) >> 1 for key in keys])
        return randn_like(torch.empty(x.shape, dtype=torch.float64, device="cpu"), generators)


def bridge(log_snr: float, low: float, high: float, left: Tensor, right: Tensor) -> tuple[Tensor, float]:
    """Mean and standard deviation of B at a log-SNR between two others where it is known."""
    share = (snr(log_snr) - snr(low)) / (snr(high) - snr(low))
    return left + share * (right - left), math.sqrt(share * (snr(high) - snr(log_snr)))


def snr(log_snr: float) -> float:
    """The signal-to-noise ratio."""
    return math.exp(log_snr)
