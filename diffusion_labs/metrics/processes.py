"""Measures of what several processes have made together."""

from typing import Any

import torch
from torch import Tensor

from diffusion_labs.metrics.frechet import FeatureStatistics


def gather_features(features: Tensor) -> Tensor:
    """The features of all processes of ``torch.distributed``, in the order of their ranks; all processes must ask.

    Kernel distance, neighbours and intervals need the features themselves. Without other processes they are as given.

    Args:
        features: of this process ``[n, ...]``; n may differ between processes.
    """
    return torch.cat(_of_all(features.detach().cpu()))


def merge_statistics(statistics: FeatureStatistics) -> FeatureStatistics:
    """The statistics of the vectors of all processes of ``torch.distributed``; all processes must ask.

    So many vectors may have been seen that no process could hold them.
    """
    total = FeatureStatistics(len(statistics.mean))
    for other in _of_all(statistics):
        total.merge(other)
    return total


def _of_all(value: Any) -> list[Any]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
