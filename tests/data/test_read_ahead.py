"""Reading ahead changes when batches are read, and nothing else."""

import threading

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.data.errors import DataError

LENGTH, SIZE = 11, 2


class Reads:
    """Numbers, whose reads are counted, and of which one can fail once."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing = failing
        self.read: list[int] = []
        self.fourth = threading.Event()

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == self.failing:
            self.failing = None
            raise OSError("no file handles")
        self.read.append(index)
        if len(self.read) == 4 * SIZE:
            self.fourth.set()
        return {"x": torch.tensor(index)}


def batches(dataset: Reads | None = None) -> dl.Batches:
    return dl.Batches(dataset or Reads(), SIZE, seed=3)


def numbers(stream, count: int) -> list[list[int]]:
    return [next(stream)["x"].tolist() for _ in range(count)]


def test_batches_and_places_are_those_of_the_stream_inside() -> None:
    """Over two epochs; each goes on where the other was, also from before what was read ahead."""
    plain, ahead = batches(), dl.ReadAhead(batches(), ahead=3)
    for _ in range(LENGTH):
        assert ahead.state_dict() == plain.state_dict()
        assert numbers(ahead, 1) == numbers(plain, 1)
    other, again = batches(), dl.ReadAhead(batches())
    numbers(again, 2)
    other.load_state_dict(ahead.state_dict())
    again.load_state_dict(ahead.state_dict())
    assert numbers(other, 7) == numbers(again, 7) == numbers(plain, 7)
    shares = [dl.ReadAhead(batches()).shared(rank, 2) for rank in (0, 1)]
    assert [[*a, *b] for a, b in zip(*(numbers(one, 4) for one in shares), strict=True)] == numbers(batches(), 4)


def test_it_reads_before_it_is_asked_and_no_more_than_told() -> None:
    dataset = Reads()
    stream = dl.ReadAhead(batches(dataset), ahead=3)
    assert dataset.read == []
    numbers(stream, 1)
    assert dataset.fourth.wait(60)
    stream._thread.shutdown()  # all that it was told to read
    assert len(dataset.read) == 4 * SIZE


def test_an_error_comes_with_its_batch_which_is_read_again() -> None:
    order = [number for batch in numbers(batches(), 5) for number in batch]
    stream = dl.ReadAhead(batches(Reads(failing=order[5])), ahead=2)
    assert numbers(stream, 2) == [order[:2], order[2:4]]
    with pytest.raises(OSError, match="no file handles"):
        next(stream)
    assert stream.state_dict()["position"] == 2
    assert numbers(stream, 3) == [order[4:6], order[6:8], order[8:10]]


def test_less_than_one_is_refused() -> None:
    with pytest.raises(DataError, match=r"ahead \(0\) must be at least 1"):
        dl.ReadAhead(batches(), ahead=0)
