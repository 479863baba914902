"""Modules from a dict of data to an updated dict."""

import zlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from diffusion_labs.randomness import SAMPLE_KEY, KeyedGenerator

Batch = Mapping[str, Any]


class Transform(nn.Module):
    """Base class: ``forward`` takes a dict of batched data and returns a new one with fields added.

    Transforms never change what they are given, so they stack in ``nn.Sequential``, mix with any
    other callable on dicts, and compile as one graph. What they draw is a function of the sample where the batch has a
    ``sample_key``, as those of ``Batches`` have, and else torch's.
    """

    stream = 0  # of random numbers; each class has its own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.stream = zlib.crc32(cls.__name__.encode())

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Return ``batch`` with the fields that this transform computes."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def field(self, batch: Batch, name: str) -> Tensor:
        """A tensor of the batch; see ``given``."""
        value: Tensor = self.given(batch, name)
        return value

    def given(self, batch: Batch, name: str) -> Any:
        """What the batch has by a name: a tensor, or a list of texts.

        Raises:
            KeyError: naming this transform, the missing field and those there are.
            TypeError: if the batch is a tensor.
        """
        if isinstance(batch, Tensor):
            raise TypeError(f"{type(self).__name__} takes a batch of named fields, not a tensor; give {{{name!r}: x}}")
        if name not in batch:
            raise KeyError(f"{type(self).__name__} needs '{name}'; the batch has {sorted(batch)}")
        return batch[name]

    def generator(self, batch: Batch, number: int = 0) -> KeyedGenerator | None:
        """Random numbers of this class by the key of each sample, others by number; ``None``, torch's, without keys."""
        if SAMPLE_KEY not in batch:
            return None
        return KeyedGenerator(self.field(batch, SAMPLE_KEY), self.stream + number)
