"""Random numbers that a seed reproduces, for a whole batch or for each sample on its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


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
    generator: Generators = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal noise of the given shape, ``[b, ...]``.

    Args:
        shape: the shape, the batch first.
        generator: ``None`` (torch's global state), one generator for the whole batch, or a list of
            one generator per sample. Noise is drawn on the generator's device and moved.
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
    if not all(isinstance(one, torch.Generator) for one in generator):
        raise TypeError("generator must be a torch.Generator or a list of them; seeded([5, 6]) makes them from seeds")
    if len(generator) != shape[0]:
        raise ValueError(
            f"got {len(generator)} generators for a batch of {shape[0]}; give one torch.Generator, or one per sample"
        )
    return torch.stack([randn(shape[1:], one, dtype=dtype, device=device) for one in generator])


def randn_like(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise with the shape, dtype and device of ``x``; see ``randn``."""
    return randn(x.shape, generator, dtype=x.dtype, device=x.device)


def independent_uniform(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
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


def _uniform(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # has no float64
    return torch.rand(count, generator=generator, device=device, dtype=dtype).to(x.device)
