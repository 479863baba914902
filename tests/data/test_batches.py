"""The stream of batches: each epoch a permutation, resumable anywhere, and shared equally between ranks."""

import itertools

import pytest
import torch

from diffusion_labs.data import Batches, DataError, Digits
from diffusion_labs.data.batches import collate, epoch_order


class Numbers:
    """A data set of the numbers below ``length``, one by one."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"x": torch.tensor(index)}


def take(batches, count):
    return [batch["x"].tolist() for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize(("length", "batch_size"), [(12, 4), (13, 4), (5, 5), (7, 1)])
def test_an_epoch_sees_each_sample_once(length, batch_size):
    batches = Batches(Numbers(length), batch_size, seed=3)
    orders = []
    for epoch in range(3):
        assert (batches.epoch, batches.position) == (epoch, 0)
        epoch_batches = take(batches, batches.batches_per_epoch)
        seen = list(itertools.chain(*epoch_batches))
        assert all(len(batch) == batch_size for batch in epoch_batches)
        assert len(set(seen)) == len(seen) == length - length % batch_size
        orders.append(tuple(seen))
    assert len(set(orders)) == 3


def test_dropped_samples_come_in_other_epochs():
    batches = Batches(Numbers(7), 4, seed=0)
    assert set(itertools.chain(*take(batches, 20))) == set(range(7))


def test_order_is_keyed_by_seed_and_epoch():
    orders = {tuple(epoch_order(20, seed, epoch).tolist()) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100
    assert epoch_order(8, 1, 2).tolist() == epoch_order(8, 1, 2).tolist()


def test_order_is_uniform():
    first = torch.stack([epoch_order(4, seed, 0) for seed in range(2400)])
    counts = torch.stack([first[:, place].bincount(minlength=4) for place in range(4)])
    assert (counts - 600).abs().max() < 5 * (2400 * 3 / 16) ** 0.5


def test_weights_say_how_often_a_sample_is_seen():
    weights = [0.25, 1.0, 1.0, 3.0, 0.75]
    seen = torch.cat([epoch_order(5, 3, epoch, torch.tensor(weights)) for epoch in range(2000)])
    counts = seen.bincount(minlength=5) / 2000
    expected = 5 * torch.tensor(weights) / 6
    assert (counts - expected).abs().max() < 5 * 0.5 / 2000**0.5  # each is one of two whole numbers in an epoch
    for epoch in range(20):
        counts = epoch_order(5, 3, epoch, torch.tensor(weights)).bincount(minlength=5)
        assert ((counts - expected).abs() < 1).all()


def test_equal_weights_are_no_weights():
    assert take(Batches(Numbers(7), 2, weights=[0.1] * 7), 9) == take(Batches(Numbers(7), 2), 9)


def test_a_weighted_stream_resumes_and_knows_its_weights():
    weights = [1.0, 2.0, 3.0, 4.0]
    whole = take(Batches(Numbers(4), 2, weights=weights), 12)
    first, second = (Batches(Numbers(4), 2, weights=weights) for _ in range(2))
    take(first, 5)
    second.load_state_dict(first.state_dict())
    assert take(second, 7) == whole[5:]
    for others in (None, [1.0, 2.0, 3.0, 5.0]):
        with pytest.raises(DataError, match=r"weights was .* and is"):
            Batches(Numbers(4), 2, weights=others).load_state_dict(first.state_dict())
    with pytest.raises(DataError, match="weights was None and is"):
        first.load_state_dict(Batches(Numbers(4), 2).state_dict())


def test_global_random_state_is_neither_read_nor_written():
    expected = take(Batches(Numbers(9), 2, seed=1), 9)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert take(Batches(Numbers(9), 2, seed=1), 9) == expected
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("steps", range(9))
def test_resumed_stream_sees_the_same_batches(steps):
    whole = take(Batches(Numbers(10), 3, seed=5), 12)
    first = Batches(Numbers(10), 3, seed=5)
    take(first, steps)
    second = Batches(Numbers(10), 3, seed=5)
    second.load_state_dict(first.state_dict())
    assert take(second, 12 - steps) == whole[steps:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_the_global_batch(world_size):
    expected = take(Batches(Numbers(20), 6, seed=2), 7)
    shares = [take(Batches(Numbers(20), 6, seed=2, rank=rank, world_size=world_size), 7) for rank in range(world_size)]
    for step, batch in enumerate(expected):
        assert list(itertools.chain(*(share[step] for share in shares))) == batch


def test_the_key_of_a_sample_depends_on_seed_and_epoch_and_not_on_its_batch():
    def pairs(batch):
        return zip(batch["x"].tolist(), batch["sample_key"].tolist(), strict=True)

    def keys(batches):
        return {(step, i): key for step, batch in enumerate(itertools.islice(batches, 6)) for i, key in pairs(batch)}

    whole = keys(Batches(Numbers(12), 6, seed=2))
    shares = [keys(Batches(Numbers(12), 6, seed=2, rank=rank, world_size=3)) for rank in range(3)]
    assert shares[0] | shares[1] | shares[2] == whole
    small, other = (list(itertools.islice(Batches(Numbers(12), size, seed), 4)) for size, seed in ((3, 2), (3, 1)))
    first = list(itertools.islice(Batches(Numbers(12), 6, seed=2), 2))
    assert dict(p for batch in small for p in pairs(batch)) == dict(p for batch in first for p in pairs(batch))
    assert (
        len({key for batches in (small, other, [first[0]]) for b in batches for key in b["sample_key"].tolist()}) == 24
    )
    assert len(set(whole.values())) == 36


def test_resume_with_another_number_of_ranks():
    whole = take(Batches(Numbers(20), 6, seed=2), 8)
    first = Batches(Numbers(20), 6, seed=2, rank=1, world_size=2)
    take(first, 4)
    shares = []
    for rank in range(3):
        share = Batches(Numbers(20), 6, seed=2, rank=rank, world_size=3)
        share.load_state_dict(first.state_dict())
        shares.append(take(share, 4))
    assert [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == whole[4:]


def test_batched_data_sets_give_the_same_batches_as_their_samples():
    digits = Digits("test")
    for fast, slow in itertools.islice(
        zip(Batches(digits, 32), Batches([digits[i] for i in range(len(digits))], 32), strict=False), 12
    ):
        assert torch.equal(fast["x"], slow["x"])
        assert torch.equal(fast["class"], slow["class"])


def test_collate():
    one, two = torch.ones(2), torch.zeros(2)
    batch = collate([{"x": one, "class": 1, "caption": "one"}, {"x": two, "class": 0, "caption": ""}])
    assert batch["x"].tolist() == [[1, 1], [0, 0]]
    assert batch["class"].tolist() == [1, 0]
    assert batch["class"].dtype == torch.int64
    assert batch["caption"] == ["one", ""]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([(1, 2)], "a sample is a tuple"),
        ([{"x": 1}, {"y": 1}], "different keys"),
        ([{"x": torch.ones(2)}, {"x": torch.ones(3)}], "'x' has different shapes"),
    ],
)
def test_collate_faults(samples, message):
    with pytest.raises(DataError, match=message):
        Batches(samples, len(samples)).__next__()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, r"batch_size \(11\) is larger than the data set \(10\)"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 5, "world_size": 2}, r"batch_size \(5\) must be a multiple of world_size \(2\)"),
        ({"batch_size": 4, "world_size": 2, "rank": 2}, "rank is 2 of world_size 2"),
        ({"batch_size": 2, "weights": [1.0] * 9}, r"weights has shape \[9\], but the data set 10 samples"),
        ({"batch_size": 2, "weights": [0.0] + [1.0] * 9}, "must be positive and finite, but are 0 to 1"),
        ({"batch_size": 2, "weights": [float("nan")] * 10}, "must be positive and finite, but are nan"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        Batches(Numbers(10), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 1 and is 0"),
        ({"batch_size": 3}, "batch_size was 3 and is 2"),
        ({"length": 11}, "length was 11 and is 10"),
        ({"position": 5}, "position 5 is not a place"),
        ({"epoch": -1}, "epoch -1"),
    ],
)
def test_state_of_another_stream(change, message):
    batches = Batches(Numbers(10), 2)
    with pytest.raises(DataError, match=message):
        batches.load_state_dict(batches.state_dict() | change)
    with pytest.raises(DataError, match=r"lacks \['position'\]"):
        batches.load_state_dict({key: 0 for key in batches.state_dict() if key != "position"})
    assert (batches.epoch, batches.position) == (0, 0)
