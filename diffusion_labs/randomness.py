"""Random numbers that a seed reproduces, for a whole batch or for each sample on its own."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

SAMPLE_KEY = "sample_key"  # field of batches: int64 [b]
GAMMA, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # of SplitMix64, as int64


Generators = torch.Generator | Sequence[torch.Generator] | None


class KeyedGenerator(NamedTuple):
    """Random numbers of each sample that are a function of its key and the stream alone: of no state, and of no batch.

    Number n of a sample is the n-th of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) from a hash of its key and the
    stream. All samples draw at once, on any device, and within one graph of ``torch.compile``.

    Attributes:
        keys: of the samples, int64 ``[b]``: seeds, or what ``sample_keys`` makes.
        stream: another number here gives other random numbers for the same keys.

    Example:
        >>> keys = sample_keys(seed=0, epoch=0, places=torch.arange(3))
        >>> whole, part = randn((3, 2), KeyedGenerator(keys)), randn((1, 2), KeyedGenerator(keys[1:2]))
        >>> bool((whole[1] == part[0]).all())
        True
    """

    keys: Int64[Tensor, " b"]
    stream: int = 0


def of_draw(number: int, generator: Generators | KeyedGenerator) -> Generators | KeyedGenerator:
    """The generator for one of several draws: itself, or of keys, which have no state, another for each number."""
    if not isinstance(generator, KeyedGenerator):
        return generator
    return KeyedGenerator(fold_in(generator.keys, generator.stream), number)


def keyed_uniform(shape: Sequence[int], generator: KeyedGenerator) -> Tensor:
    """Numbers in (0, 1) of a shape ``[b, ...]``: float64, of 52 bits; float32, of 23, where there is no float64."""
    check_generators(generator, shape[0])
    keys = fold_in(generator.keys, generator.stream)
    counts = torch.arange(1, math.prod(shape[1:]) + 1, device=keys.device)
    bits = _mixed(keys[:, None] + GAMMA * counts).reshape(tuple(shape))
    # A bit less than the type has: the half is one more, without which the largest would be rounded to 1
    dtype, number = (torch.float32, 23) if keys.device.type == "mps" else (torch.float64, 52)
    return (_shifted(bits, 64 - number).to(dtype) + 0.5) * 2.0**-number


def keyed_normal(shape: Sequence[int], generator: KeyedGenerator) -> Tensor:
    """Standard normal numbers of a shape ``[b, ...]``, of the type of ``keyed_uniform``."""
    return math.sqrt(2) * torch.erfinv(2 * keyed_uniform(shape, generator) - 1)


def sample_keys(seed: int, epoch: int, places: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
    """A key for each place in the order of an epoch, for ``KeyedGenerator``."""
    start = torch.zeros_like(places)
    return fold_in(fold_in(fold_in(start, seed), epoch), places)


def fold_in(keys: Int64[Tensor, " b"], number: int | Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
    """Other keys, by a number: ``mix(mix(keys) + gamma (number + 1))``."""
    step = GAMMA * (number + 1)
    if isinstance(step, int):
        step = (step + 2**63) % 2**64 - 2**63  # as int64 wraps around
    return _mixed(_mixed(keys) + step)


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64, on 64 bits as int64, whose products wrap around."""
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, number: int) -> Tensor:
    """The bits moved to the right, with zeros from the left."""
    return (z >> number) & (2 ** (64 - number) - 1)


def seeded(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator per sample, so that the sample of a seed does not depend on its batch.

    Args:
        seeds: one integer per sample.
        device: where the noise is drawn. Noise of a CPU generator is the same on every machine.

    Example:
        >>> alone = randn((1, 3), seeded([6]))
        >>> batch = randn((3, 3), seeded([5, 6, 7]))
        >>> bool((alone[0] == batch[1]).all())
        True
    """
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def randn(
    shape: Sequence[int],
    generator: Generators | KeyedGenerator = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal noise of the given shape, ``[b, ...]``.

    Args:
        shape: the shape, the batch first.
        generator: ``None`` (torch's global state), one generator for the whole batch, a list of one generator per
            sample, or a ``KeyedGenerator``. Noise is drawn on the generator's device and moved.
        dtype: dtype of the result; torch's default dtype if ``None``.
        device: device of the result; torch's default device if ``None``.

    Raises:
        ValueError: if a list of generators does not have one generator per sample.
    """
    shape = tuple(shape)
    if generator is None:
        return torch.randn(shape, dtype=dtype, device=device)
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device).to(device)
    if isinstance(generator, KeyedGenerator):
        return keyed_normal(shape, generator).to(device, dtype or torch.get_default_dtype())
    check_generators(generator, shape[0])
    return torch.stack([randn(shape[1:], one, dtype=dtype, device=device) for one in generator])


def check_generators(generator: Generators | KeyedGenerator, batch: int) -> None:
    """Raise unless it is what ``randn`` takes for so many samples.

    Raises:
        TypeError: if it is no generator, nor a list of them.
        ValueError: if it is not one for each sample.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return
    if isinstance(generator, KeyedGenerator):
        if batch != len(generator.keys):
            raise ValueError(f"got {len(generator.keys)} keys for a batch of {batch}; give one per sample")
        return
    if not hasattr(generator, "__len__") or not all(isinstance(one, torch.Generator) for one in generator):
        raise TypeError("generator must be a torch.Generator or a list of them; seeded([5, 6]) makes them from seeds")
    if len(generator) != batch:
        raise ValueError(
            f"got {len(generator)} generators for a batch of {batch}; give one torch.Generator, or one per sample"
        )


def randn_like(x: Tensor, generator: Generators | KeyedGenerator = None) -> Tensor:
    """Standard normal noise with the shape, dtype and device of ``x``; see ``randn``."""
    return randn(x.shape, generator, dtype=x.dtype, device=x.device)


def independent_uniform(x: Tensor, generator: torch.Generator | KeyedGenerator | None = None) -> Tensor:
    """Independent uniform numbers in [0, 1) for the samples of a batch ``x``: ``[b]``, float64."""
    return _uniform(x, x.shape[0], generator)


def stratified_uniform(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers that cover [0, 1) evenly within a batch ``x``: ``[b]``, float64.

    ``v_i = (offset + i / b) mod 1`` with one offset a batch, the low-discrepancy sampler of Variational
    Diffusion Models (arXiv 2107.00630): each number is uniform, and every interval ``[i / b, (i + 1) / b)`` has one.
    """
    b = x.shape[0]
    offset = _uniform(x, 1, generator)
    return (offset + torch.arange(b, dtype=offset.dtype, device=x.device) / max(b, 1)) % 1


def _uniform(x: Tensor, count: int, generator: torch.Generator | KeyedGenerator | None) -> Tensor:
    if isinstance(generator, KeyedGenerator):
        return keyed_uniform((count,), generator).to(x.device)
    device = x.device if generator is None else generator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # has no float64
    if generator is None:  # with a generator, even None, compiled code has one batch size alone
        return torch.rand(count, device=device, dtype=dtype)
    return torch.rand(count, generator=generator, device=device, dtype=dtype).to(x.device)
