"""The time embedding: its formula, its geometry, and its precision."""

import math

import pytest
import torch

from diffusion_labs.layers import TimeEmbedding, sinusoidal_embedding

TIMES = torch.tensor([0, 1, 7, 500, 999, 1000])


@pytest.mark.parametrize("shift", [0, 1])
def test_cosines_first_then_sines_at_the_frequencies_of_the_formula(shift: int) -> None:
    embedding = sinusoidal_embedding(TIMES, 10, max_period=100.0, shift=shift, dtype=torch.float64)
    for row, t in enumerate(TIMES.tolist()):
        for i in range(5):
            angle = t * math.exp(-math.log(100.0) * i / (5 - shift))
            assert embedding[row, i].item() == pytest.approx(math.cos(angle), abs=1e-11)
            assert embedding[row, 5 + i].item() == pytest.approx(math.sin(angle), abs=1e-11)


def test_with_shift_one_the_last_period_is_the_longest() -> None:
    embedding = sinusoidal_embedding(torch.tensor([math.pi * 50.0]), 8, max_period=100.0, shift=1)
    assert embedding[0, 3].item() == pytest.approx(0.0, abs=1e-6)
    assert embedding[0, 7].item() == pytest.approx(1.0)


def test_a_scale_multiplies_the_time() -> None:
    times = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert torch.equal(sinusoidal_embedding(times, 8, scale=1024.0), sinusoidal_embedding(1024 * times, 8))
    torch.manual_seed(0)
    plain = TimeEmbedding(8, 4)
    scaled = TimeEmbedding(8, 4, scale=1024.0)
    scaled.load_state_dict(plain.state_dict())
    assert torch.equal(scaled(times), plain(1024 * times))


def test_similarity_depends_on_the_difference_of_times_alone() -> None:
    times = torch.arange(0, 1000, 37, dtype=torch.float64)
    embedding, moved = (sinusoidal_embedding(times + offset, 32) for offset in (0.0, 123.4))
    torch.testing.assert_close(embedding @ embedding.mT, moved @ moved.mT)


def test_odd_width_ends_in_zeros() -> None:
    odd, even = sinusoidal_embedding(TIMES, 9), sinusoidal_embedding(TIMES, 8)
    assert torch.equal(odd[:, :8], even)
    assert torch.equal(odd[:, 8], torch.zeros(len(TIMES)))


def test_equal_to_diffusers() -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings", reason="diffusers is the oracle here")
    for shift in (0, 1):
        theirs = embeddings.get_timestep_embedding(TIMES, 64, flip_sin_to_cos=True, downscale_freq_shift=shift)
        torch.testing.assert_close(sinusoidal_embedding(TIMES, 64, shift=shift), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("times", "dtype", "expected"),
    [
        (torch.int64, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.int32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_computed_in_float32_or_better(times: torch.dtype, dtype: torch.dtype, expected: torch.dtype) -> None:
    t = torch.tensor([0, 1, 7]).to(times)
    embedding = sinusoidal_embedding(t, 16, dtype=dtype)
    assert embedding.dtype == expected
    exact = sinusoidal_embedding(t.double(), 16)
    torch.testing.assert_close(embedding.double(), exact, rtol=0, atol=1e-6)


def test_a_bfloat16_network_tells_neighbouring_times_apart() -> None:
    torch.manual_seed(0)
    module = TimeEmbedding(64, 32)
    exact = module(torch.tensor([999, 1000]))
    half = module.to(torch.bfloat16)(torch.tensor([999, 1000]))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.01)
    assert (exact[0] - exact[1]).abs().max() > 0.05


def test_integer_and_floating_times_agree() -> None:
    module = TimeEmbedding(16, 8)
    assert torch.equal(module(TIMES), module(TIMES.float()))


@pytest.mark.parametrize(("dim", "shift"), [(1, 0), (2, 1), (0, 0)])
def test_a_width_without_frequencies_is_refused(dim: int, shift: int) -> None:
    with pytest.raises(ValueError, match=rf"dim \({dim}\).*shift={shift}"):
        sinusoidal_embedding(TIMES, dim, shift=shift)
