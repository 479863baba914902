"""Streams of tars: one order of samples for any number of processes, exact resumption, and every fault named."""

import copy
import itertools
import weakref

import pytest
import torch

from diffusion_labs.data import Batches, DataError, StreamBatches, TarImages, TarStream
from diffusion_labs.data import tar_stream as module
from diffusion_labs.data.batches import epoch_order
from tests.data.tars import samples, write_tar

SIZES = (7, 4, 9, 1, 7)  # of the tars; 28 samples


def assert_same(state, other):
    """The same to the bit."""
    assert state.pop("held").equal(other["held"])
    assert state == {name: value for name, value in other.items() if name != "held"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tars of samples numbered through."""
    folder = tmp_path_factory.mktemp("tars")
    start = 0
    for tar, size in enumerate(SIZES):
        write_tar(folder / f"{tar}.tar", samples(range(start, start + size)))
        start += size
    return folder


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The same with two images that cannot be decoded, side by side, and two samples that are left out."""
    folder = tmp_path_factory.mktemp("damaged")
    files = samples(range(28), **{"005.png": b"", "006.png": b"no image", "011.txt": None, "020.json": "{"})
    names = sorted(files)
    for tar in range(2):
        half = names[: names.index("014.png")] if tar == 0 else names[names.index("014.png") :]
        write_tar(folder / f"{tar}.tar", {name: files[name] for name in half})
    return folder


def make(folder, batch_size=4, seed=0, buffer_size=6, **options):
    return StreamBatches(TarStream(folder, 4, **options), batch_size, seed, buffer_size=buffer_size)


def take(batches, count):
    """What the samples of some batches are: the number in the image, the caption and the key."""
    return [
        list(
            zip(batch["x"][:, 0, 0, 0].tolist(), map(int, batch["caption"]), batch["sample_key"].tolist(), strict=True)
        )
        for batch in itertools.islice(batches, count)
    ]


def numbers(batches, count):
    return [caption for batch in take(batches, count) for _, caption, _ in batch]


@pytest.mark.parametrize("buffer_size", [1, 6, 100])
def test_an_epoch_sees_each_sample_once(folder, buffer_size):
    batches = make(folder, buffer_size=buffer_size)
    orders = []
    for epoch in range(2):
        found = take(batches, 7)
        assert (batches.epoch, batches.position) == (epoch, 7)
        assert all(image == caption for batch in found for image, caption, _ in batch)
        orders.append(tuple(caption for batch in found for _, caption, _ in batch))
        assert sorted(orders[-1]) == list(range(28))
    assert len(set(orders)) == 2
    assert numbers(make(folder, seed=1, buffer_size=buffer_size), 7) != list(orders[0])


def test_what_is_left_over_comes_in_other_epochs(folder):
    batches = make(folder, batch_size=5)
    epochs = [numbers(batches, 5) for _ in range(4)]
    assert all(len(set(epoch)) == 25 for epoch in epochs)
    assert set().union(*epochs) == set(range(28))


def test_keys_are_those_of_the_places_as_in_other_batches(folder):
    keys = [key for batch in take(make(folder, seed=3), 14) for *_, key in batch]
    other = [
        key for batch in itertools.islice(Batches([{}] * 28, 7, seed=3), 8) for key in batch["sample_key"].tolist()
    ]
    assert keys == other


def test_a_buffer_of_one_gives_the_tars_in_their_order(folder):
    starts = [sum(SIZES[:tar]) for tar in range(len(SIZES))]
    order = [starts[tar] + i for tar in epoch_order(len(SIZES), 5, 0).tolist() for i in range(SIZES[tar])]
    assert numbers(make(folder, seed=5, buffer_size=1), 7) == order


def test_a_large_buffer_makes_every_order_as_likely():
    class Four:
        def __len__(self):
            return 1

        def read(self, shard):
            return iter(range(4))

        def decode(self, samples, chosen):
            return {"x": torch.tensor(samples)}

    first = torch.stack([next(StreamBatches(Four(), 4, seed))["x"] for seed in range(100)])
    counts = torch.stack([first[:, place].bincount(minlength=4) for place in range(4)])
    assert (counts - 25).abs().max() < 5 * (100 * 3 / 16) ** 0.5


@pytest.mark.filterwarnings("ignore:skipped")
def test_processes_share_the_global_batch(damaged):
    alone = make(damaged, on_error="skip")
    expected = take(alone, 8)
    for world_size in (2, 4):
        shares = [make(damaged, on_error="skip").shared(rank, world_size) for rank in range(world_size)]
        found = zip(*(take(share, 8) for share in shares), strict=True)
        assert [list(itertools.chain(*parts)) for parts in found] == expected
        for share in shares:
            assert_same(share.state_dict(), alone.state_dict())


@pytest.mark.filterwarnings("ignore:skipped")
def test_the_next_good_one_of_the_batch_stands_in_for_a_damaged_one(damaged):
    good = {number: number for number in range(28)} | {5: None, 6: None}
    batches = make(damaged, batch_size=6, on_error="skip")
    encoded = []
    decode = batches.stream.decode
    batches.stream.decode = lambda samples, chosen: (encoded.append(samples), decode(samples, chosen))[1]
    found = take(batches, 8)
    assert (batches.stream.reading.skipped, batches.stream.decoding.skipped) == (4, 4)  # in two epochs
    for batch, asked in zip(found, encoded, strict=True):
        asked = [int(sample.fields["caption"]) for sample in asked]
        turned = [asked[i:] + asked[:i] for i in range(6)]
        expected = [next(number for number in candidates if good[number] is not None) for candidates in turned]
        assert [image for image, *_ in batch] == [caption for _, caption, _ in batch] == expected
    assert {*itertools.chain(*[[int(s.fields["caption"]) for s in asked] for asked in encoded])} == {*good} - {11, 20}


@pytest.mark.parametrize("which", ["folder", "damaged"])
@pytest.mark.filterwarnings("ignore:skipped")
def test_a_resume_at_any_place_sees_the_same_batches(request, which):
    """As what comes is a function of the state, it is the same for ever once the state is."""
    folder = request.getfixturevalue(which)
    alone = make(folder, on_error="skip")
    states = [alone.state_dict()]
    expected = []
    for _ in range(15):  # more than two epochs
        expected += take(alone, 1)
        states.append(copy.deepcopy(alone.state_dict()))
    for place in range(15):
        rank = place % 2
        share = make(folder, on_error="skip").shared(rank, 2)
        take(share, place % 3 == 2)
        share.load_state_dict(states[place])
        assert_same(share.state_dict(), states[place])
        assert take(share, 1) == [expected[place][2 * rank : 2 * rank + 2]]
        assert_same(share.state_dict(), states[place + 1])


class Objects:
    """A stream of 40 shards of 5 objects, which knows how many of them there are, and what it was asked."""

    class Sample:
        def __init__(self, number):
            self.number = number

    def __init__(self):
        self.alive, self.most, self.read_shards, self.decoded = weakref.WeakSet(), 0, [], []

    def __len__(self):
        return 40

    def read(self, shard):
        self.read_shards.append(shard)
        for i in range(5):
            sample = self.Sample(5 * shard + i)
            self.alive.add(sample)
            self.most = max(self.most, len(self.alive))
            yield sample
            del sample

    def decode(self, samples, chosen):
        self.decoded += [samples[i].number for i in chosen]
        return {"x": torch.tensor([samples[i].number for i in chosen])}


def test_no_more_is_held_than_the_buffer_and_a_batch():
    stream = Objects()
    batches = StreamBatches(stream, 8, buffer_size=20)
    for place, batch in enumerate(itertools.islice(batches, 60)):
        start = 8 * (place % 25)
        read = epoch_order(40, 0, place // 25)[: -(-(start + 8 + 20) // 5)]  # of what is in the buffer at the batch
        assert {number // 5 for number in batch["x"].tolist()} <= set(read.tolist())
    assert 20 <= stream.most <= 20 + 8 + 1
    assert sorted(stream.decoded[:200]) == list(range(200))


def test_a_process_decodes_its_share_alone(folder, monkeypatch):
    decoded = []

    def decode_image(*arguments, **options):
        decoded.append(options["name"])
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    monkeypatch.setattr(module, "decode_image", decode_image)
    share = make(folder).shared(1, 4)
    list(itertools.islice(share, 5))
    assert len(set(decoded)) == len(decoded) == 5
    resumed = make(folder).shared(1, 4)
    resumed.load_state_dict(share.state_dict())
    assert len(decoded) == 5


def test_a_resume_reads_the_shards_of_the_buffer_alone():
    first = StreamBatches(Objects(), 8, buffer_size=10)
    list(itertools.islice(first, 20))
    stream = Objects()
    second = StreamBatches(stream, 8, buffer_size=10)
    second.load_state_dict(first.state_dict())
    order = epoch_order(40, 0, 0).tolist()
    held = first.state_dict()["held"]
    assert stream.read_shards == [order[turn] for turn in held[:, 0].unique().tolist()]
    assert len(stream.read_shards) < 20
    assert [next(second)["x"].tolist() for _ in range(10)] == [next(first)["x"].tolist() for _ in range(10)]


def test_classes_and_captions_are_those_of_the_map_style_data_set(tmp_path):
    files = samples(range(4), **{f"00{i}.json": f'{{"class": "{"abba"[i]}", "text": "not this"}}' for i in range(4)})
    tar = write_tar(tmp_path / "a.tar", dict(sorted(files.items())))
    one = next(Batches(TarImages(tar, 4), 4))
    stream = TarStream(tar, 4, class_names=["a", "b"])
    assert (stream.num_classes, stream.image_shape, len(stream)) == (2, (3, 4, 4), 1)
    other = next(StreamBatches(stream, 4, buffer_size=1))
    by_caption = one["class"][torch.tensor(list(map(int, one["caption"]))).argsort()]
    assert other["caption"] == list("0123")
    assert torch.equal(other["class"], by_caption)
    assert other["class"].dtype == torch.long
    assert next(StreamBatches(TarStream(tar, 4, captions=False), 4)).keys() == {"x", "sample_key"}
    with pytest.raises(DataError, match=r"000\.png: label 'a' is out of range: the 2 classes are 0, 1"):
        next(StreamBatches(TarStream(tar, 4, num_classes=2), 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 1 and is 0"),
        ({"batch_size": 3}, "batch_size was 3 and is 4"),
        ({"buffer_size": 5}, "buffer_size was 5 and is 6"),
        ({"shards": 6}, "shards was 6 and is 5"),
        (
            {"held": torch.tensor([[0, 0], [0, 99]])},
            "1 of the 2 samples that were in the buffer are not where they were",
        ),
    ],
)
def test_state_of_another_stream(folder, change, message):
    batches = make(folder)
    with pytest.raises(DataError, match=message):
        batches.load_state_dict(batches.state_dict() | change)
    with pytest.raises(DataError, match=r"lacks \['held'\]"):
        batches.load_state_dict({key: 0 for key in batches.state_dict() if key != "held"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"buffer_size": 0}, "buffer_size is 0"),
        ({"on_error": "hide"}, "on_error is 'hide'"),
        ({"num_classes": 2, "class_names": "ab"}, "both given"),
        ({"class_names": "aa"}, "class_names has duplicates"),
        ({"channels": 2}, "channels is 2"),
        ({"batch_size": 29}, "epoch 0 has 28 good samples, less than a batch of 29"),
    ],
)
def test_wrong_arguments(folder, options, message):
    with pytest.raises(DataError, match=message):
        next(make(folder, **options))
