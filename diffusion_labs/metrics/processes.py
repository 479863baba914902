"""Measures of what several processes have made together."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.metrics.extractors import FeatureExtractor
from diffusion_labs.metrics.frechet import FeatureStatistics
from diffusion_labs.training.world import current_world


def gather_features(features: Tensor) -> Tensor:
    """The features of all processes of ``torch.distributed``, in the order of their ranks; all processes must ask.

    Kernel distance, neighbours and intervals need the features themselves. Without other processes they are as given.

    Args:
        features: of this process ``[n, ...]``; n may differ between processes.
    """
    return torch.cat(current_world().gather(features.detach().cpu()))


def merge_statistics(statistics: FeatureStatistics) -> FeatureStatistics:
    """The statistics of the vectors of all processes of ``torch.distributed``; all processes must ask.

    So many vectors may have been seen that no process could hold them.
    """
    total = FeatureStatistics(len(statistics.mean))
    for other in current_world().gather(statistics):
        total.merge(other)
    return total


def in_parts(count: int, make: Callable[[int, int], Any]) -> list[Any]:
    """What all processes of ``torch.distributed`` make, each of its part, in order; all processes must ask.

    Args:
        count: of the things to make something of. Processes without one make nothing; of a single one, the first does.
        make: from the first of some places, and the one after the last, to something that can be pickled, on the CPU.
    """
    world = current_world()
    first, stop = (-(-count * rank // world.size) for rank in (world.rank, world.rank + 1))
    own = [make(first, stop)] if first < stop else []
    return [made for part in world.gather(own) for made in part]


class FeaturesInParts:
    """The features of an extractor, of which each process computes a part; all processes must ask, for the same images.

    Args:
        extractor: the same in all processes.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.name = extractor.name

    def features(self, images: Tensor) -> Tensor:
        """See ``FeatureExtractor``."""
        return torch.cat(in_parts(len(images), lambda first, stop: self.extractor.features(images[first:stop])))

    def log_probabilities(self, images: Tensor) -> Tensor | None:
        """See ``FeatureExtractor``."""
        parts = in_parts(len(images), lambda first, stop: self.extractor.log_probabilities(images[first:stop]))
        return None if parts[0] is None else torch.cat(parts)
