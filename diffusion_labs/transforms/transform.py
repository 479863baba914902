"""Modules from a dict of data to an updated dict."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Batch = Mapping[str, Any]


class Transform(nn.Module):
    """Base class: ``forward`` takes a dict of batched data and returns a new one with fields added.

    Transforms never change what they are given, so they stack in ``nn.Sequential``, mix with any
    other callable on dicts, and compile as one graph. All their randomness is torch's.
    """

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Return ``batch`` with the fields that this transform computes."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def field(self, batch: Batch, name: str) -> Tensor:
        """A tensor of the batch.

        Raises:
            KeyError: naming this transform, the missing field and those there are.
        """
        if name not in batch:
            raise KeyError(f"{type(self).__name__} needs '{name}'; the batch has {sorted(batch)}")
        value: Tensor = batch[name]
        return value
