"""Means of numbers of many batches."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class MetricMeans(nn.Module):
    """Adds up scalars of each batch without a synchronisation, and gives their means when they are asked for.

    The sums are no part of the state: the loop asks for them before it saves.

    Args:
        names: of the scalars; every batch has all of them.
    """

    sums: Tensor
    count: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("sums", torch.zeros(len(self.names)), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.long), persistent=False)

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Note the scalars of a batch."""
        self.sums.add_(torch.stack([values[name].to(self.sums.dtype) for name in self.names]))
        self.count.add_(1)

    def take(self) -> dict[str, Tensor]:
        """The means since the last call; NaN without a batch."""
        means = self.sums / self.count
        self.sums.zero_()
        self.count.zero_()
        return dict(zip(self.names, means.unbind(), strict=True))
