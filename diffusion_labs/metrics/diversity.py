"""How different the samples of one class are from each other."""

import torch
from torch import Tensor

from diffusion_labs.metrics.frechet import check_features


def within_class_distance(features: Tensor, labels: Tensor, *, chunk: int = 1024) -> float:
    """Mean Euclidean distance between two different samples of one class, averaged over the classes.

    Exact, over all pairs, in float64. Each class counts the same, however many samples it has; classes with
    one sample have no pairs and do not count. Divided by the same figure of real images, it tells whether
    a model shows less variety than its data.

    Args:
        features: ``[n, d]``.
        labels: ``[n]`` integers.
        chunk: rows of the distance matrix to hold at once.

    Raises:
        ValueError: if shapes do not fit, features hold NaN or infinity, or no class has two samples.

    Example:
        >>> within_class_distance(torch.tensor([[0.0], [3.0], [9.0]]), torch.tensor([0, 0, 1]))
        3.0
    """
    check_features(features)
    if labels.shape != features.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels must be {len(features)} integers, got {labels.dtype} {list(labels.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1")
    features, labels = features.detach().cpu().double(), labels.cpu()
    groups = [features[labels == label] for label in labels.unique()]
    means = [_mean_pairwise_distance(group, chunk) for group in groups if len(group) > 1]
    if not means:
        raise ValueError("no class has two samples, so there are no pairs; make more samples of each class")
    return torch.stack(means).mean().item()


def _mean_pairwise_distance(points: Tensor, chunk: int) -> Tensor:
    """Over ordered pairs; the n zeros of a point with itself are in the sum but not in the count."""
    exact = "donot_use_mm_for_euclid_dist"  # differences, not |a|^2 - 2ab + |b|^2, which cancels
    total = torch.stack([torch.cdist(rows, points, compute_mode=exact).sum() for rows in points.split(chunk)]).sum()
    return total / (len(points) * (len(points) - 1))
