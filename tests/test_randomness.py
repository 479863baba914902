"""Noise by seed."""

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs import randomness
from diffusion_labs.randomness import keyed_normal, keyed_uniform


def test_the_noise_of_a_seed_does_not_depend_on_its_batch() -> None:
    batch = dl.randn((3, 2, 5), dl.seeded([5, 6, 7]))
    for i, seed in enumerate([5, 6, 7]):
        assert torch.equal(dl.randn((1, 2, 5), dl.seeded([seed]))[0], batch[i])


def test_a_generator_is_used_up() -> None:
    generators = dl.seeded([5, 6])
    assert not torch.equal(dl.randn((2, 5), generators), dl.randn((2, 5), generators))


def test_the_caller_s_generator_and_the_global_one_are_kept_apart() -> None:
    before = torch.get_rng_state()
    one = dl.randn((2, 5), torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, dl.randn((2, 5), torch.Generator().manual_seed(1)))
    assert not torch.equal(dl.randn((2, 5)), dl.randn((2, 5)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_as_asked(dtype: torch.dtype) -> None:
    assert dl.randn((2, 5), dl.seeded([1, 2]), dtype=dtype).dtype == dtype


def test_one_generator_per_sample_is_needed() -> None:
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        dl.randn((3, 1), dl.seeded([1, 2]))


BITS = 2**64


def split_mix(z: int) -> int:
    """The finaliser of SplitMix64, in integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % BITS
    return z ^ (z >> 31)


def fold(key: int, number: int) -> int:
    return split_mix((split_mix(key) + 0x9E3779B97F4A7C15 * (number + 1)) % BITS)


def test_keyed_numbers_are_those_of_split_mix() -> None:
    seed, epoch, stream = 2**40 + 5, 3, 2**32 - 1
    found = keyed_uniform(
        (3, 2, 2), dl.KeyedGenerator(dl.sample_keys(seed, epoch, torch.tensor([0, 7, 10**12])), stream)
    )
    for row, place in enumerate([0, 7, 10**12]):
        key = fold(fold(fold(fold(0, seed), epoch), place), stream)
        bits = [split_mix((key + 0x9E3779B97F4A7C15 * n) % BITS) for n in range(1, 5)]
        assert found[row].flatten().tolist() == [((value >> 12) + 0.5) / 2**52 for value in bits]


def test_keyed_noise_does_not_depend_on_the_batch_and_is_another_for_each_stream_seed_and_epoch() -> None:
    keys = dl.sample_keys(0, 0, torch.arange(50))
    whole = dl.randn((50, 3), dl.KeyedGenerator(keys))
    order = torch.randperm(50)
    assert torch.equal(dl.randn((50, 3), dl.KeyedGenerator(keys[order])), whole[order])
    others = [
        dl.randn((50, 3), dl.KeyedGenerator(keys, stream=1)),
        *(dl.randn((50, 3), dl.KeyedGenerator(dl.sample_keys(*k, torch.arange(50)))) for k in [(1, 0), (0, 1)]),
    ]
    assert len(torch.cat([whole, *others]).unique()) == 4 * 150


def test_keyed_noise_is_standard_normal() -> None:
    """The largest distance of the distributions, and the correlation of streams, samples and neighbours."""
    n = 200_000
    keys = dl.sample_keys(0, 0, torch.arange(n // 4))
    x = torch.stack([dl.randn((n // 4, 4), dl.KeyedGenerator(keys, i), dtype=torch.float64) for i in range(2)])
    values = x.flatten().sort().values
    expected = torch.special.ndtr(values)
    places = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
    assert (expected - places).abs().max() < 1.95 / len(values) ** 0.5  # Kolmogorov and Smirnov, probability 0.001
    pairs = [(x[0], x[1]), (x[:, 1:], x[:, :-1]), (x[..., 1:], x[..., :-1])]
    for one, other in pairs:
        assert abs((one * other).mean().item()) < 4 / one.numel() ** 0.5


def test_a_key_for_each_sample_is_needed() -> None:
    with pytest.raises(ValueError, match="2 keys for a batch of 3"):
        dl.randn((3, 1), dl.KeyedGenerator(torch.tensor([1, 2])))


class OnDevice(torch.Tensor):
    """A tensor that says that it is on another device."""

    name = "cpu"
    device = property(lambda self: torch.device(self.name))


@pytest.mark.parametrize("device", ["cpu", "mps"])
@pytest.mark.parametrize("bits", [0, -1])
def test_the_smallest_and_the_largest_number_are_within_the_interval(
    bits: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all bits 0 and 1; also in float32, as on devices without float64."""
    monkeypatch.setattr(OnDevice, "name", device)
    monkeypatch.setattr(randomness, "fold_in", lambda keys, number: keys)
    monkeypatch.setattr(randomness, "_mixed", lambda z: torch.full((1, 1), bits))
    monkeypatch.setattr(randomness.torch, "arange", lambda *_, device: torch.ones(1, dtype=torch.int64))
    generator = dl.KeyedGenerator(torch.zeros(1, dtype=torch.int64).as_subclass(OnDevice))
    found = keyed_uniform((1, 1), generator)
    assert found.dtype == (torch.float32 if device == "mps" else torch.float64)
    assert 0 < found.item() < 1
    assert keyed_normal((1, 1), generator).isfinite().all()
