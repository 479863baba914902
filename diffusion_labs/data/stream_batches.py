"""Batches of data that can only be read from start to end, and is larger than memory and disk."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from diffusion_labs.data.batches import Batch, epoch_order
from diffusion_labs.data.errors import DataError
from diffusion_labs.data.shared_batches import SharedBatches
from diffusion_labs.randomness import SAMPLE_KEY, KeyedGenerator, keyed_uniform, sample_keys

CHOICES = zlib.crc32(b"StreamBatches")  # the stream of random numbers


@runtime_checkable
class SampleStream(Protocol):
    """What ``StreamBatches`` needs of data: shards, such as tars, each of which can be read from its start."""

    def __len__(self) -> int:
        """The number of shards."""

    def read(self, shard: int) -> Iterator[Any]:
        """The samples of a shard, encoded: the same in the same order each time, in every process."""

    def decode(self, samples: Sequence[Any], chosen: range) -> Batch:
        """The chosen ones of the encoded samples of a global batch, as a batch; a function of these samples alone."""


class Held(NamedTuple):
    """An encoded sample in the buffer.

    Attributes:
        turn: of its shard in the epoch.
        number: of the sample in its shard.
        sample: as the stream gave it.
    """

    turn: int
    number: int
    sample: Any


class StreamBatches(SharedBatches):
    """An endless iterator of batches from a stream, shuffled through a bounded buffer.

    The shards of an epoch come in an order drawn from the seed and the epoch. Their samples go through a buffer: at
    each place of the epoch one that is in it is given, chosen by the seed, the epoch and the place, and the next one
    read takes its room. So the sample at a place, and its ``sample_key``, are functions of the seed, the epoch and the
    place alone: the same for any number of ranks, and after a resume. Each sample comes once in an epoch. What is left
    over at its end, less than a batch, is dropped; the next epoch leaves out others.

    What this costs: every rank reads the bytes of all samples, decodes those of its own share, and holds
    ``buffer_size`` encoded samples in memory, and for a moment a global batch of them. Samples that are given one after
    the other are from the last few ``buffer_size`` read, so they should lie in the shards in random order. A resume
    reads again, and does not decode, the shard that was being read, and those of which samples were in the buffer.

    Args:
        stream: has ``__len__``, ``read(shard)`` and ``decode(samples, chosen)``, see ``SampleStream``; ``TarStream``.
        batch_size: samples in a global batch, over all ranks.
        seed: of the order.
        buffer_size: samples in the buffer.
        rank: which share of each batch to give.
        world_size: how many equal shares there are.

    Raises:
        DataError: if a batch cannot be shared equally, or when reading, if an epoch has no whole batch; what the stream
            raises. After an error in reading it cannot go on, but what loads its last ``state_dict`` can.

    Example:
        >>> stream = TarStream("https://example.org/part-{000..127}.tar", size=64)
        >>> batches = StreamBatches(stream, batch_size=256)
    """

    def __init__(
        self,
        stream: SampleStream,
        batch_size: int,
        seed: int = 0,
        *,
        buffer_size: int = 1000,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(stream, batch_size, seed, rank, world_size)
        if buffer_size < 1:
            raise DataError(f"buffer_size is {buffer_size}; it must be at least 1")
        self.stream = stream
        self.buffer_size = buffer_size
        self._buffer: list[Held] = []
        self._begin(epoch=0)

    def __iter__(self) -> "StreamBatches":
        return self

    def __next__(self) -> Batch:
        samples = self._take()
        if len(samples) < self.batch_size and self.position > 0:
            self._begin(self.epoch + 1)
            samples = self._take()
        if len(samples) < self.batch_size:
            raise DataError(
                f"epoch {self.epoch} has {len(samples)} good samples, less than a batch of {self.batch_size}"
            )
        (start, stop), first, keys = self._share(), self.position * self.batch_size, self.keys()
        self.position += 1
        return {**self.stream.decode(samples, range(start - first, stop - first)), SAMPLE_KEY: keys}

    def shared(self, rank: int, world_size: int) -> "StreamBatches":
        """The same stream, from its beginning, for one of several ranks."""
        return StreamBatches(
            self.stream, self.batch_size, self.seed, buffer_size=self.buffer_size, rank=rank, world_size=world_size
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: what was read last, and where the samples in the buffer are from."""
        return {
            **super().state_dict(),
            "shards": len(self.stream),
            "buffer_size": self.buffer_size,
            "next": list(self._next),
            "held": torch.tensor([held[:2] for held in self._buffer], dtype=torch.long).view(-1, 2),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the stream of ``state`` was. The number of ranks may be another.

        Raises:
            DataError: if seed, batch size, the size of the buffer, the number of shards or the ``fingerprint()`` of the
                stream differ, as then the batches would be others, or the samples of its buffer are not where they
                were.
        """
        self._check_state(state, ("seed", "batch_size", "shards", "buffer_size"))
        self._begin(state["epoch"])
        self._buffer = self._read_again([(turn, number) for turn, number in state["held"].tolist()])
        self.position = state["position"]
        self._next = (state["next"][0], state["next"][1])
        self._source = self._samples(*self._next)

    def _begin(self, epoch: int) -> None:
        self.epoch, self.position = epoch, 0
        self._order: list[int] = epoch_order(len(self.stream), self.seed, epoch).tolist()
        self._buffer = []
        self._next = (0, 0)
        self._source = self._samples(0, 0)

    def _samples(self, turn: int, number: int) -> Iterator[Held | None]:
        """What is read from a place in the epoch on, then ``None``: a generator that an error has ended just stops."""
        yield from self._shard(turn, number)
        for later in range(turn + 1, len(self._order)):
            yield from self._shard(later)
        while True:
            yield None

    def _shard(self, turn: int, number: int = 0) -> Iterator[Held]:
        """The samples of a shard from one on."""
        for place, sample in enumerate(islice(self.stream.read(self._order[turn]), number, None), number):
            yield Held(turn, place, sample)

    def _read_again(self, places: Sequence[tuple[int, int]]) -> list[Held]:
        """The samples of these turns and numbers, in this order."""
        numbers = {
            turn: {number for _, number in group} for turn, group in groupby(sorted(places), lambda place: place[0])
        }
        found = {
            held[:2]: held
            for turn, wanted in numbers.items()
            for held in islice(self._shard(turn), max(wanted) + 1)
            if held.number in wanted
        }
        if len(found) < len(places):
            raise DataError(
                f"{len(places) - len(found)} of the {len(places)} samples that were in the buffer are not where they "
                "were; resume with the data of the saved run"
            )
        return [found[turn, number] for turn, number in places]

    def _take(self) -> list[Any]:
        """The samples of the next global batch, encoded; fewer at the end of an epoch."""
        places = self.position * self.batch_size + torch.arange(self.batch_size, device="cpu")
        keys = sample_keys(self.seed, self.epoch, places)
        taken = []
        for choice in keyed_uniform((self.batch_size,), KeyedGenerator(keys, CHOICES)).tolist():
            self._fill()
            if not self._buffer:
                break
            chosen = min(int(choice * len(self._buffer)), len(self._buffer) - 1)
            self._buffer[chosen], self._buffer[-1] = self._buffer[-1], self._buffer[chosen]
            taken.append(self._buffer.pop().sample)
        return taken

    def _fill(self) -> None:
        while len(self._buffer) < self.buffer_size:
            held = next(self._source)
            if held is None:
                return
            self._buffer.append(held)
            self._next = (held.turn, held.number + 1)
