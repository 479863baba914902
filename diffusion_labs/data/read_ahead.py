"""Batches that are read while others are trained on."""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from diffusion_labs.data.batches import Batch
from diffusion_labs.data.errors import DataError


class ReadAhead:
    """Batches that a thread reads ahead, so that a device need not wait for files to be read and decoded.

    Which they are, in which order, and what ``state_dict`` says, is as without it: the place is that after the last
    batch which was given, and what was read beyond is read again. A data set of your own must draw its random numbers
    by the index, not from torch's global generator, from which the training draws meanwhile.

    Args:
        batches: ``Batches``, ``StreamBatches``, or other endless ones with ``state_dict`` and ``load_state_dict``.
        ahead: how many to have ready, at least 1.

    Raises:
        DataError: for less.

    Example:
        >>> plain, ahead = (dl.Batches(dl.Digits(), batch_size=8) for _ in range(2))
        >>> ahead = dl.ReadAhead(ahead, ahead=2)
        >>> [torch.equal(next(ahead)["x"], next(plain)["x"]) for _ in range(3)]
        [True, True, True]
        >>> ahead.state_dict()["position"]
        3
    """

    def __init__(self, batches: Any, ahead: int = 2) -> None:
        if ahead < 1:
            raise DataError(f"ahead ({ahead}) must be at least 1")
        self.batches = batches
        self.ahead = ahead
        self._thread: ThreadPoolExecutor | None = None
        self._coming: deque[Future[tuple[Batch, dict[str, Any]]]] = deque()
        self._state: dict[str, Any] = batches.state_dict()

    def __iter__(self) -> "ReadAhead":
        return self

    def __next__(self) -> Batch:
        self._thread = self._thread or ThreadPoolExecutor(1, "read ahead")
        while len(self._coming) <= self.ahead:  # the one to give, and those after it
            self._coming.append(self._thread.submit(self._read))
        try:
            batch, self._state = self._coming.popleft().result()
        except Exception:
            self.load_state_dict(self._state)
            raise
        return batch

    def shared(self, rank: int, world_size: int) -> "ReadAhead":
        """The same stream, from its beginning, for one of several ranks."""
        return ReadAhead(self.batches.shared(rank, world_size), self.ahead)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, after the last batch that was given."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the stream of ``state`` was. Raises as that of the batches."""
        for coming in self._coming:
            coming.cancel()
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = None
        self._coming.clear()
        self.batches.load_state_dict(state)
        self._state = self.batches.state_dict()

    def _read(self) -> tuple[Batch, dict[str, Any]]:
        batch: Batch = next(self.batches)
        return batch, self.batches.state_dict()
