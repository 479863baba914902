"""The Frechet distance between two sets of features."""

import torch
from jaxtyping import Float
from torch import Tensor


class FeatureStatistics:
    """Mean and covariance of feature vectors, gathered batch by batch in float64.

    Two statistics merge into that of all their vectors, so that each rank can gather its own. Sums are
    of centred vectors (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979): no digits are lost to a large mean.

    Args:
        dim: length of the feature vectors.

    Attributes:
        count: how many vectors there were.
        mean: ``[d]`` float64.
        scatter: sum of the outer products of the centred vectors, ``[d, d]`` float64.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim is {dim}; features need at least one dimension")
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> "FeatureStatistics":
        """The statistics of one set of features, ``[n, d]``."""
        check_features(features)
        statistics = cls(features.shape[1])
        statistics.update(features)
        return statistics

    def update(self, features: Tensor) -> None:
        """Add a batch of features, ``[n, d]``.

        Raises:
            ValueError: if they are empty, hold NaN or infinity, or have another length.
        """
        check_features(features)
        features = features.detach().cpu().double()
        batch = FeatureStatistics(features.shape[1])
        batch.count = len(features)
        batch.mean = features.mean(0)
        centred = features - batch.mean
        batch.scatter = centred.T @ centred
        self.merge(batch)

    def merge(self, other: "FeatureStatistics") -> None:
        """Add the vectors that another statistic has seen.

        Raises:
            ValueError: if its vectors have another length.
        """
        if other.mean.shape != self.mean.shape:
            raise ValueError(f"features have {len(other.mean)} dimensions, but these statistics have {len(self.mean)}")
        count = self.count + other.count
        if count == 0:
            return
        difference = other.mean - self.mean
        self.scatter = self.scatter + other.scatter
        self.scatter += torch.outer(difference, difference) * (self.count * other.count / count)
        self.mean = self.mean + difference * (other.count / count)
        self.count = count

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The unbiased covariance (divided by count - 1).

        Raises:
            ValueError: with fewer than two vectors.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.count}")
        return self.scatter / (self.count - 1)

    def frechet_distance(self, other: "FeatureStatistics") -> float:
        """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))``.

        The squared 2-Wasserstein distance of the Gaussians with these means and covariances (Dowson and
        Landau, "The Frechet distance between multivariate normal distributions", 1982; Heusel et al.,
        arXiv 1706.08500, Eq. 6). The inner matrix is symmetric, so the trace of its root is the sum of the
        roots of its eigenvalues.

        Raises:
            ValueError: if lengths differ or one side has fewer than two vectors.
        """
        if other.mean.shape != self.mean.shape:
            raise ValueError(f"features have {len(self.mean)} and {len(other.mean)} dimensions; use the same extractor")
        root = _symmetric_root(self.covariance)
        eigenvalues = torch.linalg.eigvalsh(root @ other.covariance @ root)
        mean_term = (self.mean - other.mean).square().sum()
        trace_term = self.covariance.trace() + other.covariance.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
        return (mean_term + trace_term).clamp(min=0).item()


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """The Frechet distance between the Gaussians fitted to two sets of features, ``[n, d]`` and ``[m, d]``.

    It falls as n and m grow, even between two samples of one distribution: compare it only at equal
    sizes, and beside that floor.

    Raises:
        ValueError: if a set has fewer than two vectors, NaN or infinity, or lengths differ.

    Example:
        >>> a = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(a, a + 3.0), 4)
        18.0
    """
    return FeatureStatistics.of(features_a).frechet_distance(FeatureStatistics.of(features_b))


def check_features(features: Tensor) -> None:
    """Raise a ValueError unless features are ``[n, d]`` with n at least 1, all finite."""
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features must be [n, d] with n and d at least 1, got {list(features.shape)}")
    if not features.isfinite().all():
        raise ValueError("features hold NaN or infinity; look for a diverged model or broken images")


def _symmetric_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T
