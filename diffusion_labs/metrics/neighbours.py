"""Fidelity, variety and novelty of samples, by the nearest neighbours of their features."""

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_labs.metrics.frechet import check_features
from diffusion_labs.metrics.kernel_distance import check_pair


class NeighbourMeasures(NamedTuple):
    """How samples lie among real data. All are 1 at best, and density may be more.

    Attributes:
        precision: the share of samples inside of the real data's balls.
        recall: the share of real data inside of the samples' balls.
        density: how many of the real data's balls a sample is in, in units of k, on average.
        coverage: the share of the real data's balls that hold a sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_measures(real: Tensor, samples: Tensor, *, neighbours: int = 5, chunk: int = 1024) -> NeighbourMeasures:
    """Precision and recall (arXiv 1904.06991, Eq. 1 and 2), density and coverage (arXiv 2002.09797, Eq. 4 and 5).

    The ball of a vector reaches to its k-th nearest neighbour among its own kind, which it contains. Precision and
    recall count what is in any ball, so that one outlier with a large ball spoils them; density and coverage do not
    suffer so. None are comparable between other numbers of vectors, or other k.

    Args:
        real: features of real data, ``[n, d]``.
        samples: features of samples, ``[m, d]``.
        neighbours: k; the papers have 3 for precision and recall, 5 for density and coverage.
        chunk: rows of the distance matrix to hold at once.

    Raises:
        ValueError: if a set has not more than k vectors, NaN or infinity, or lengths differ.
    """
    check_pair(real, samples)
    if not 1 <= neighbours < min(len(real), len(samples)):
        raise ValueError(
            f"neighbours ({neighbours}) must be at least 1 and less than the {len(real)} real vectors and the "
            f"{len(samples)} samples; give more of them"
        )
    real, samples = real.detach().cpu().double(), samples.detach().cpu().double()
    real_radius, sample_radius = (_radii(x, neighbours, chunk) for x in (real, samples))
    balls = torch.zeros(len(samples), dtype=torch.long)  # of the real data, that each sample is in
    covered, recalled = [], []
    for rows, radius in zip(real.split(chunk), real_radius.split(chunk), strict=True):
        distance = _distances(rows, samples)
        inside = distance <= radius[:, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distance <= sample_radius).any(1))
    return NeighbourMeasures(
        precision=(balls > 0).double().mean().item(),
        recall=torch.cat(recalled).double().mean().item(),
        density=balls.double().mean().item() / neighbours,
        coverage=torch.cat(covered).double().mean().item(),
    )


class Nearest(NamedTuple):
    """The nearest of some data, for each of some samples.

    Attributes:
        indices: which it is, ``[n]``.
        distances: how far it is, ``[n]`` float64.
        ratios: that, as a share of the distance of the second nearest, ``[n]`` float64; 1 if both are 0.
    """

    indices: Tensor
    distances: Tensor
    ratios: Tensor


def nearest(samples: Tensor, training: Tensor, *, chunk: int = 256) -> Nearest:
    """The nearest training image of each sample, by pixels or features.

    Args:
        samples: ``[n, ...]``, flattened.
        training: ``[m, ...]``, with at least two.
        chunk: samples to compare at once.

    Raises:
        ValueError: if there are fewer than two training images, NaN or infinity, or shapes differ.
    """
    samples, training = samples.detach().cpu().flatten(1).double(), training.detach().cpu().flatten(1).double()
    check_features(samples)
    check_features(training)
    if samples.shape[1] != training.shape[1]:
        raise ValueError(f"samples have {samples.shape[1]} values and training images {training.shape[1]}; resize them")
    if len(training) < 2:
        raise ValueError("the second nearest of 1 training image is not defined; give at least 2")
    found = [_distances(rows, training).topk(2, largest=False) for rows in samples.split(chunk)]
    distance = torch.cat([values for values, _ in found])
    ratio = torch.where(distance[:, 1] > 0, distance[:, 0] / distance[:, 1], 1.0)
    return Nearest(torch.cat([index[:, 0] for _, index in found]), distance[:, 0], ratio)


def copied_share(ratios: Tensor, *, threshold: float = 1 / 3) -> float:
    """The share of samples that are much nearer to one training image than to all others.

    A sample that is new is about as far from several. The threshold is that of "On Memorization in Diffusion Models"
    (arXiv 2310.02664). Images that the data have twice are not found: remove duplicates before.

    Args:
        ratios: those of ``nearest``.
        threshold: samples whose ratio is below are copies.
    """
    return (ratios < threshold).double().mean().item()


def _radii(x: Tensor, neighbours: int, chunk: int) -> Tensor:
    """The distance of each vector to its k-th nearest other one."""
    return torch.cat([_distances(rows, x).kthvalue(neighbours + 1).values for rows in x.split(chunk)])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # by products, zeros are not found
