"""The endless stream of batches that training reads, and can go on with where it stopped."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion_labs.data.errors import DataError
from diffusion_labs.data.shared_batches import SharedBatches
from diffusion_labs.files import tensors_sha256
from diffusion_labs.randomness import SAMPLE_KEY

Batch = dict[str, Any]


@runtime_checkable
class MapDataset(Protocol):
    """What ``Batches`` needs of a data set: a length, and a dict for each index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@runtime_checkable
class BatchedDataset(Protocol):
    """A data set that gives a whole batch in one call."""

    def __getitems__(self, indices: Sequence[int], /) -> Batch: ...


class Batches(SharedBatches):
    """An endless iterator of shuffled batches.

    The batch at a position is a function of ``(seed, epoch, position)`` alone: the order of an epoch is a
    permutation drawn from a generator keyed by the seed and the epoch. So a run that loads
    ``state_dict()`` sees the batches that it would have seen, and each of several ranks computes its
    share of the same global batch without talking to the others. What is left over at the end of an
    epoch, less than a batch, is dropped; the next epoch leaves out others.

    A batch has the field ``sample_key``, int64 ``[b]``, a function of the seed, the epoch and the sample's place in its
    order. Transforms draw noise and times from it (``KeyedGenerator``), so what a sample meets does not depend on how
    batches are shared.

    Args:
        dataset: has ``__len__`` and ``__getitem__(index) -> dict``. If it has
            ``__getitems__(indices) -> batch``, that is used; else samples are collated: tensors are stacked,
            numbers become a tensor, anything else a list.
        batch_size: samples in a global batch, over all ranks.
        seed: of the order.
        weights: how often each sample is seen, relative to the others, so that a kind of which there are many does not
            crowd out the rare ones, see ``epoch_order``; each once in an epoch if ``None``.
        rank: which share of each batch to give.
        world_size: how many equal shares there are.

    Raises:
        DataError: if the data set is smaller than a batch, a batch cannot be shared equally, or the weights are not one
            positive number per sample.

    Example:
        >>> numbers = [{"x": torch.tensor(i)} for i in range(6)]
        >>> batches = Batches(numbers, batch_size=2, seed=0)
        >>> sorted(torch.cat([next(batches)["x"] for _ in range(3)]).tolist())
        [0, 1, 2, 3, 4, 5]
    """

    def __init__(
        self,
        dataset: MapDataset,
        batch_size: int,
        seed: int = 0,
        *,
        weights: Sequence[float] | Tensor | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size > len(dataset):
            raise DataError(f"batch_size ({batch_size}) is larger than the data set ({len(dataset)}); lower it")
        super().__init__(dataset, batch_size, seed, rank, world_size)
        self.dataset = dataset
        self.weights = None if weights is None else _checked_weights(weights, len(dataset))
        self._order = self.order(epoch=0)

    @cached_property
    def _weights_digest(self) -> str | None:
        return None if self.weights is None else tensors_sha256({"weights": self.weights})

    @property
    def batches_per_epoch(self) -> int:
        """Whole global batches in one pass of the data."""
        return len(self.dataset) // self.batch_size

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        batch = {**collect(self.dataset, self.indices()), SAMPLE_KEY: self.keys()}
        self._go_to(self.epoch, self.position + 1)
        return batch

    def indices(self) -> list[int]:
        """The indices of this rank's share of the next batch."""
        start, stop = self._share()
        return self._order[start:stop].tolist()

    def shared(self, rank: int, world_size: int) -> "Batches":
        """The same stream, from its beginning, for one of several ranks."""
        return Batches(self.dataset, self.batch_size, self.seed, weights=self.weights, rank=rank, world_size=world_size)

    def order(self, epoch: int) -> Tensor:
        """The indices of an epoch in their order."""
        return epoch_order(len(self.dataset), self.seed, epoch, self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, and what its order depends on."""
        return {
            **super().state_dict(),
            "length": len(self.dataset),
            **({} if self._weights_digest is None else {"weights": self._weights_digest}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the stream of ``state`` was. The number of ranks may be another.

        Raises:
            DataError: if seed, batch size, weights or the data set differ, by its length and its ``fingerprint()``, as
                then the batches would be others, or the position is not one of an epoch.
        """
        self._check_state(state, ("seed", "batch_size", "length"), optional=("weights",))
        if state["epoch"] < 0 or not 0 <= state["position"] < self.batches_per_epoch:
            raise DataError(
                f"epoch {state['epoch']}, position {state['position']} is not a place in this stream "
                f"of {self.batches_per_epoch} batches an epoch; the saved state is damaged"
            )
        self.epoch = state["epoch"]
        self._order = self.order(self.epoch)
        self.position = state["position"]

    def _go_to(self, epoch: int, position: int) -> None:
        if position == self.batches_per_epoch:
            epoch, position = epoch + 1, 0
            self._order = self.order(epoch)
        self.epoch, self.position = epoch, position


def collect(dataset: MapDataset, indices: Sequence[int]) -> Batch:
    """The batch of some samples of a data set."""
    if isinstance(dataset, BatchedDataset):
        return dataset.__getitems__(indices)
    return collate([dataset[index] for index in indices])


def epoch_order(length: int, seed: int, epoch: int, weights: Tensor | None = None) -> Tensor:
    """The order of an epoch, ``[length]``: a permutation keyed by the seed and the epoch.

    With weights, sample i is in it ``length * weights[i] / sum(weights)`` times on average, rounded up or down at
    random (systematic sampling).

    The key is hashed, so that epoch 1 of seed 0 is not epoch 0 of seed 1.
    """
    key = hashlib.sha256(f"epoch order, seed {seed}, epoch {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big", signed=True))
    order = torch.randperm(length, generator=generator)
    if weights is None:
        return order
    places = (torch.arange(length) + torch.rand(1, generator=generator, dtype=torch.float64)) / length
    return torch.searchsorted(weights.cumsum(0) / weights.sum(), places, right=True).clamp(max=length - 1)[order]


def _checked_weights(weights: Sequence[float] | Tensor, length: int) -> Tensor:
    values = torch.as_tensor(weights, dtype=torch.float64, device="cpu")
    if values.shape != (length,):
        raise DataError(f"weights has shape {list(values.shape)}, but the data set {length} samples; give one for each")
    if not (values.isfinite() & (values > 0)).all():
        raise DataError(f"weights must be positive and finite, but are {values.min():g} to {values.max():g}")
    return values


def collate(samples: Sequence[Any]) -> Batch:
    """Make a batch of dicts with the same keys: tensors are stacked, numbers make a tensor, others a list.

    Raises:
        DataError: if a sample is not a mapping, or keys or shapes differ.
    """
    for sample in samples:
        if not isinstance(sample, Mapping):
            raise DataError(f"a sample is a {type(sample).__name__}; dataset[i] must be a dict such as {{'x': image}}")
        if sample.keys() != samples[0].keys():
            raise DataError(
                f"samples have different keys: {sorted(samples[0])} and {sorted(sample)}; give all the same"
            )
    return {key: _collate_values(key, [sample[key] for sample in samples]) for key in samples[0]}


def _collate_values(key: str, values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise DataError(f"{key!r} has different shapes in one batch: {sorted(shapes)}; make them equal")
        return torch.stack(values)
    if isinstance(values[0], (bool, int, float)):
        return torch.tensor(values)
    return values
