"""Attention against its definition in float64, and where it is not used."""

import pytest
import torch
from torch import Tensor

from diffusion_labs.kernels.attention import attention, attention_without_gradient, fits
from diffusion_labs.layers import merge_heads, split_heads_interleaved, split_heads_stacked
from tests.kernels.comparison import assert_same_error, operators, tangent

pytestmark = pytest.mark.usefixtures("kernels_on")

SHAPES = [(16, 1, 256, 64), (3, 4, 100, 32), (2, 2, 332, 48)]


def definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def used(*inputs: Tensor) -> bool:
    return "diffusion_labs::attention_without_gradient" in operators(attention, *inputs)


@pytest.mark.parametrize("keys", [64, 272])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition_in_float64(shape: tuple[int, ...], keys: int) -> None:
    b, h, n, d = shape
    q, k, v = 3 * torch.randn(b, h, n, d), torch.randn(b, h, keys, d), torch.randn(b, h, keys, d)
    assert used(q, k, v)
    exact = definition(q.double(), k.double(), v.double())
    assert (attention(q, k, v) - exact).norm() < 2e-6 * exact.norm()


@pytest.mark.parametrize("split", [split_heads_interleaved, split_heads_stacked])
def test_reads_projections_and_writes_tokens_without_a_copy(split) -> None:
    q, k, v = split(torch.randn(4, 128, 3 * 2 * 32), 2, 3)
    with torch.profiler.profile() as profile:
        merged = merge_heads(attention(q, k, v))
    assert not {"aten::copy_", "aten::clone"} & {event.key for event in profile.key_averages()}
    torch.testing.assert_close(merged, merge_heads(definition(q, k, v)))


def test_a_layout_with_distant_channels_is_taken_too() -> None:
    q, k, v = (torch.randn(2, 2, 32, 128).mT for _ in range(3))
    torch.testing.assert_close(attention(q, k, v), definition(q, k, v))


def test_large_scores_neither_overflow_nor_vanish() -> None:
    q = torch.full((16, 1, 64, 16), 100.0)
    k, v = torch.linspace(-1, 1, 64)[:, None].expand(16, 1, 64, 16), torch.randn(16, 1, 64, 16)
    torch.testing.assert_close(attention(q, k, v), definition(q, k, v))


def test_what_is_not_a_number_is_seen() -> None:
    q, k, v = (torch.randn(16, 1, 64, 16) for _ in range(3))
    k[3, 0, 5, 2] = torch.nan
    assert attention(q, k, v).isnan().flatten(1).any(1).nonzero().tolist() == [[3]]


def test_gradients_masks_and_other_sizes_are_left_to_pytorch() -> None:
    q, k, v = (torch.randn(16, 1, 64, 16) for _ in range(3))
    assert fits(q, k, v)
    assert not fits(q.clone().requires_grad_(), k, v)
    with torch.no_grad():
        assert fits(q.clone().requires_grad_(), k, v)
    assert not fits(q[..., :15], k[..., :15], v[..., :15])
    assert not fits(q, k[:, :, :63], v[:, :, :63])
    assert not fits(q[:, :, :63], k, v)
    assert not fits(q[:1, :, :32], k[:1], v[:1])
    mask = torch.rand(16, 1, 64, 64) > 0.5
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    assert torch.equal(attention(q, k, v, mask), expected)


def test_the_operator_keeps_the_rules_of_pytorch() -> None:
    q, k, v = split_heads_stacked(torch.randn(2, 16, 3 * 2 * 16), 2, 3)
    torch.library.opcheck(attention_without_gradient.registered, (q, k, v))


def test_what_is_broadcast_is_left_to_pytorch() -> None:
    q, k, v = (torch.randn(4, 4, 64, 32) for _ in range(3))
    for keys, values in ((k[:1], v[:1]), (k[:, :1], v[:, :1]), (k[:1], v), (k[:1, :1], v[:, :1])):
        torch.testing.assert_close(attention(q, keys, values), definition(q, keys, values))
    torch.testing.assert_close(attention(q[0], k[0], v[0]), definition(q[0], k[0], v[0]))


def test_sizes_that_do_not_agree_are_the_error_of_pytorch() -> None:
    q, k, v = (torch.randn(4, 4, 64, 32) for _ in range(3))
    for inputs in ((q, k[..., :16], v), (q, k[:2], v), (q, k[:, :2], v[:, :2])):
        assert_same_error(
            lambda inputs=inputs: attention(*inputs),
            lambda inputs=inputs: torch.nn.functional.scaled_dot_product_attention(*inputs),
        )


@pytest.mark.parametrize("grad", [True, False])
def test_the_operator_reads_nothing_beyond_its_tensors(grad: bool) -> None:
    q, k, v = (torch.randn(4, 4, 64, 32) for _ in range(3))
    wrong = [(q, k[:1], v[:1]), (q, k, v[:, :, :16]), (q[..., :8], k, v), (q[0], k[0], v[0]), (q, k, v.double())]
    with torch.set_grad_enabled(grad):
        for inputs in wrong:
            with pytest.raises(ValueError, match=r"not written for|float32"):
                torch.ops.diffusion_labs.attention_without_gradient(*inputs)


@pytest.mark.parametrize("grad", [True, False])
def test_tangents_are_those_of_the_definition(grad: bool) -> None:
    q, k, v, direction = (torch.randn(4, 4, 64, 32) for _ in range(4))
    expected = tangent(lambda q: definition(q, k, v), q, direction)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(tangent(lambda q: attention(q, k, v), q, direction), expected)
        _, pushed = torch.func.jvp(lambda q: attention(q, k, v), (q,), (direction,))
    torch.testing.assert_close(pushed, expected)
