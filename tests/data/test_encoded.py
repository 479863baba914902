"""A data set kept after a network: the same samples, whole shards, and nothing mixed up."""

import json
import shutil
import threading

import pytest
import torch

from diffusion_labs import files
from diffusion_labs.data import Batches, DataError, EncodedDataset, encode_dataset

SAMPLES = [{"x": torch.full((2,), float(i)), "caption": f"number {i}", "class": i % 3} for i in range(23)]


def double(batch):
    return {"z": 2 * batch["x"], "caption": batch["caption"], "class": batch["class"]}


class Counting:
    """``double``, and the samples that it was asked for; it fails when there are too many."""

    def __init__(self, limit=10**9):
        self.seen, self.limit = 0, limit

    def __call__(self, batch):
        self.seen += len(batch["x"])
        if self.seen > self.limit:
            raise KeyboardInterrupt
        return double(batch)


def encode(folder, function=double, description=None, **options):
    sizes = {"batch_size": 4, "shard_size": 10} | options
    return encode_dataset(SAMPLES, function, folder, description=description or {"by": "double"}, **sizes)


def test_it_is_the_function_of_every_sample(tmp_path):
    told = []
    encode(tmp_path, progress=told.append)
    dataset = EncodedDataset(tmp_path)
    assert told == [4, 8, 10, 14, 18, 20, 23]  # three shards, in batches of four
    assert dataset.description == {"by": "double"}
    for sample, encoded in zip(SAMPLES, dataset, strict=True):
        assert torch.equal(encoded["z"], 2 * sample["x"])
        assert (encoded["caption"], int(encoded["class"])) == (sample["caption"], sample["class"])
    assert torch.equal(dataset[-1]["z"], 2 * SAMPLES[-1]["x"])
    batch = next(Batches(dataset, 23))
    assert sorted(batch["z"][:, 0].tolist()) == [2 * i for i in range(23)]
    with pytest.raises(IndexError):
        dataset[23]


def test_what_was_interrupted_goes_on_with_the_next_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, Counting(limit=14))
    with pytest.raises(DataError, match=r"has no index\.json, so it is not complete"):
        EncodedDataset(tmp_path)
    second = Counting()
    whole = encode(tmp_path, second)
    assert second.seen == 13
    assert [float(sample["z"][0]) for sample in whole] == [2 * i for i in range(23)]
    third = Counting()
    told = []
    encode(tmp_path, third, progress=told.append)
    assert third.seen == 0
    assert told == [10, 20, 23]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("interrupted", [False, True])
def test_processes_share_the_shards(tmp_path, world_size, interrupted):
    """Threads stand for processes, as all that these share is the folder and the barrier."""
    encode(tmp_path / "alone", shard_size=5)
    folder = tmp_path / "together"
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            encode(folder, Counting(limit=12), shard_size=5)
    barrier = threading.Barrier(world_size, timeout=60)
    counts = [Counting() for _ in range(world_size)]
    found = {}

    def one(rank):
        share = {"rank": rank, "world_size": world_size, "wait": barrier.wait}
        found[rank] = len(encode(folder, counts[rank], shard_size=5, **share))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(world_size), 23)
    assert contents(folder) == contents(tmp_path / "alone")
    sizes = [0, 0, 5, 5, 3] if interrupted else [5, 5, 5, 5, 3]
    assert [count.seen for count in counts] == [sum(sizes[rank::world_size]) for rank in range(world_size)]


def test_shards_of_something_else_are_refused(tmp_path):
    encode(tmp_path / "a")
    for other in ({"description": {"by": "another"}}, {"shard_size": 5}):
        with pytest.raises(DataError, match="of another data set or encoder"):
            encode(tmp_path / "a", **other)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        encode(tmp_path / "b")


def test_damage_is_named(tmp_path):
    encode(tmp_path)
    shard = tmp_path / "shard-00001-of-00003"
    tensors = shard / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(DataError, match="shard-00001-of-00003 is damaged"):
        EncodedDataset(tmp_path)
    EncodedDataset(tmp_path, verify=False)
    encode(tmp_path)  # does not make it whole
    with pytest.raises(DataError, match="shard-00001-of-00003 is damaged"):
        EncodedDataset(tmp_path)
    shutil.rmtree(shard)
    with pytest.raises(DataError, match="shard-00001-of-00003 cannot be read"):
        EncodedDataset(tmp_path)
    encode(tmp_path)
    EncodedDataset(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index\.json cannot be read"):
        EncodedDataset(tmp_path)


def test_lists_are_verified_as_tensors_are(tmp_path):
    encode(tmp_path)
    lists, index = tmp_path / "shard-00000-of-00003" / "lists.json", tmp_path / "index.json"
    content = lists.read_text()
    lists.write_text(content.replace("number 3", "number 9"))
    with pytest.raises(DataError, match=r"shard-00000-of-00003 is damaged: the sha256 of its lists\.json"):
        EncodedDataset(tmp_path)
    encode(tmp_path)  # does not make it whole
    with pytest.raises(DataError, match=r"shard-00000-of-00003 is damaged"):
        EncodedDataset(tmp_path)
    lists.write_text('{"caption": ["only one"]}')
    with pytest.raises(DataError, match=r"lengths .*'caption': 1"):
        EncodedDataset(tmp_path, verify=False)
    lists.write_text(content)
    before = json.loads(index.read_text())
    index.write_text(json.dumps({key: value for key, value in before.items() if key != "lists"}))  # an early one
    assert EncodedDataset(tmp_path)[3]["caption"] == "number 3"
    encode(tmp_path)
    assert json.loads(index.read_text()) == before


@pytest.mark.parametrize("moment", range(1, 8))
def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch, moment):
    """A copy of the folder at each moment in which something is flushed is what a kill leaves."""
    folder, killed, moments, flush = tmp_path / "data", tmp_path / "killed", [], files.flush

    def copied(path):
        moments.append(path)
        if len(moments) == moment:
            shutil.copytree(folder, killed)
        flush(path)

    monkeypatch.setattr(files, "flush", copied)
    encode(folder)
    encode(killed)
    assert contents(killed) == contents(folder)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: {"z": batch["x"][:1]}, "1 of 'z' for 4 samples"),
        (lambda batch: {"z": [None] * len(batch["x"])}, "'z' of NoneType"),
    ],
)
def test_what_cannot_be_kept(tmp_path, function, message):
    with pytest.raises(DataError, match=message):
        encode(tmp_path, function)


def test_sizes(tmp_path):
    with pytest.raises(DataError, match=r"shard_size \(0\)"):
        encode(tmp_path, shard_size=0)
    encode(tmp_path, shard_size=100)
    assert [path.name for path in tmp_path.glob("shard-*")] == ["shard-00000-of-00001"]
