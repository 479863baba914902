"""The length of a sample."""

from torch import Tensor


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample, shaped to multiply it: ``[b, 1, ..., 1]``."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
