"""What all streams of batches have in common."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.data.errors import DataError
from diffusion_labs.data.fingerprint import fingerprint_of
from diffusion_labs.randomness import sample_keys


class SharedBatches:
    """Base class of endless iterators of batches: where one is, and which share of a batch a rank has.

    Samples have places 0, 1, ... in an epoch, which are consecutive in a batch, and in each rank's share of it. What is
    at a place is a child's.

    Args:
        source: of the samples, whose ``fingerprint()``, if it has one, tells whether data is that of before.
        batch_size: samples in a global batch, over all ranks.
        seed: of the order.
        rank: which share of each batch to give.
        world_size: how many equal shares there are.

    Raises:
        DataError: if a batch cannot be shared equally.
    """

    def __init__(self, source: Any, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1")
        if world_size < 1 or not 0 <= rank < world_size:
            raise DataError(f"rank is {rank} of world_size {world_size}; ranks are 0..world_size-1")
        if batch_size % world_size:
            raise DataError(f"batch_size ({batch_size}) must be a multiple of world_size ({world_size}); change it")
        self._fingerprinted = source
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0

    def keys(self) -> Tensor:
        """The keys of this rank's share of the next batch, for ``KeyedGenerator``."""
        start, stop = self._share()
        return sample_keys(self.seed, self.epoch, torch.arange(start, stop, device="cpu"))

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, and what its order depends on."""
        state = {"epoch": self.epoch, "position": self.position, "seed": self.seed, "batch_size": self.batch_size}
        return state if self._data is None else {**state, "data": self._data}

    @cached_property
    def _data(self) -> str | None:
        return fingerprint_of(self._fingerprinted)

    def _share(self) -> tuple[int, int]:
        """The places of this rank's share of the next batch in the order of the epoch."""
        share = self.batch_size // self.world_size
        start = self.position * self.batch_size + self.rank * share
        return start, start + share

    def _check_state(self, state: Mapping[str, Any], same: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Raise unless ``state`` is of the same stream, by the named values, some of which may be absent in both.

        The fingerprint of the data, "data", is compared where both have one, which states of before have not.
        """
        own = self.state_dict()
        missing = own.keys() - state.keys() - {*optional, "data"}
        if missing:
            raise DataError(f"the state of the batches lacks {sorted(missing)}; it is not of this version")
        different = [name for name in (*same, *optional) if own.get(name) != state.get(name)]
        if different:
            pairs = ", ".join(f"{name} was {state.get(name)} and is {own.get(name)}" for name in different)
            raise DataError(f"the batches would not be those of the saved run: {pairs}; use the same values")
        if {"data"} <= own.keys() & state.keys() and own["data"] != state["data"]:
            raise DataError(
                "the data is not that of the saved run: names or sizes of its files, or classes or captions, are "
                "others; use the same data"
            )
