"""The kernel distance between two sets of features."""

import torch
from torch import Tensor

from diffusion_labs.metrics.frechet import check_features


def kernel_distance(features_a: Tensor, features_b: Tensor, *, chunk: int = 1024) -> float:
    """The squared maximum mean discrepancy, by the kernel ``k(x, y) = (x.y / d + 1)^3``.

    ``mean k(a, a') + mean k(b, b') - 2 mean k(a, b)`` over all pairs of different vectors: the unbiased estimate of
    "Demystifying MMD GANs" (arXiv 1801.01401, section 4), there of Inception's features, by the name of KID. Its
    expectation does not depend on how many vectors there are, and is 0 for two samples of one distribution, so that an
    estimate may be below it.

    Args:
        features_a: ``[n, d]``.
        features_b: ``[m, d]``.
        chunk: rows of the kernel's matrix to hold at once.

    Raises:
        ValueError: if a set has fewer than two vectors, NaN or infinity, or lengths differ.

    Example:
        >>> kernel_distance(torch.zeros(3, 2), torch.ones(4, 2))
        7.0
    """
    check_pair(features_a, features_b)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1")
    a, b = features_a.detach().cpu().double(), features_b.detach().cpu().double()
    across = _kernel_sum(a, b, chunk) / (len(a) * len(b))
    return (_mean_of_pairs(a, chunk) + _mean_of_pairs(b, chunk) - 2 * across).item()


def check_pair(features_a: Tensor, features_b: Tensor) -> None:
    """Raise a ValueError unless both are features of one length, and at least two each."""
    for features in (features_a, features_b):
        check_features(features)
        if len(features) < 2:
            raise ValueError(f"a distance between distributions needs at least 2 feature vectors, got {len(features)}")
    if features_a.shape[1] != features_b.shape[1]:
        raise ValueError(
            f"features have {features_a.shape[1]} and {features_b.shape[1]} dimensions; use the same extractor"
        )


def _kernel(product: Tensor, dim: int) -> Tensor:
    return (product / dim + 1) ** 3


def _kernel_sum(a: Tensor, b: Tensor, chunk: int) -> Tensor:
    return torch.stack([_kernel(rows @ b.T, a.shape[1]).sum() for rows in a.split(chunk)]).sum()


def _mean_of_pairs(x: Tensor, chunk: int) -> Tensor:
    own = _kernel(x.square().sum(1), x.shape[1]).sum()
    return (_kernel_sum(x, x, chunk) - own) / (len(x) * (len(x) - 1))
