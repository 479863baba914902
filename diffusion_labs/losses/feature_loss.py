"""Distances of images in the features of a network."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PerceptualLoss(Protocol):
    """What the training of autoencoders takes: a module from images and their reconstructions to distances."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of each pair, ``[b]``, of images ``[b, c, *size]`` in [-1, 1]."""


class FeatureLoss(nn.Module):
    """The distance of images in the normalised features of a network.

    ``sum_l mean_p sum_c (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2`` over layers l, positions p and channels c, where
    ``|f|`` is the norm over the channels at one position (LPIPS, arXiv 1801.03924, Eq. 1 without its weights).

    The network is copied, never trained, and always in eval mode.

    Args:
        network: layers that follow each other.
        layers: the numbers of those whose features are compared.

    Raises:
        ValueError: for numbers that are no layers, or do not rise.

    Example:
        >>> classifier = train_classifier(images, labels, num_classes=10)
        >>> loss = FeatureLoss(classifier.convolutions, [2, 6, 10])
    """

    def __init__(self, network: nn.Sequential, layers: Sequence[int]) -> None:
        super().__init__()
        bounds = [0, *(layer + 1 for layer in layers)]
        if len(bounds) < 2 or bounds != sorted(set(bounds)) or bounds[-1] > len(network):
            raise ValueError(
                f"layers ({list(layers)}) must rise and be between 0 and {len(network) - 1}, the last layer"
            )
        stages = [network[begin:end] for begin, end in itertools.pairwise(bounds)]
        self.stages = nn.ModuleList(copy.deepcopy(stages))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FeatureLoss":
        """Stays in eval mode: the features are those of a trained network."""
        return super().train(False)

    def differences(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """``(f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2`` of each layer, ``[b, c, positions]``."""
        for stage in self.stages:
            x, y = stage(x), stage(y)
            yield (_normalised(x) - _normalised(y)) ** 2

    def forward(self, x: Float[Tensor, "b c *d"], y: Float[Tensor, "b c *d"]) -> Float[Tensor, " b"]:
        """The distance of each pair of images."""
        distances = [difference.sum(1).mean(1) for difference in self.differences(x, y)]
        return torch.stack(distances).sum(0)


def _normalised(features: Tensor) -> Tensor:
    """``f / |f|`` in float32 or better, ``[b, c, positions]``; 0 with a finite gradient where f is 0."""
    f = features.to(torch.promote_types(features.dtype, torch.float32)).reshape(*features.shape[:2], -1)
    return f * torch.rsqrt((f**2).sum(1, keepdim=True) + 1e-20)
