"""Noise by seed."""

import pytest
import torch

import diffusion_labs as dl


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
