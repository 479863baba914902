"""The Transformer block against its formulas, written a second time."""

import pytest
import torch
from torch import Tensor, nn

from diffusion_labs.layers import GatedFeedForward, MultiHeadAttention, TransformerBlock
from tests.catalogue import randomise

DIM, HEADS, CONTEXT = 12, 3, 5
MASK = torch.tensor([[True, False, True, True], [False, False, True, False]])


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 7, DIM, dtype=torch.float64), torch.randn(2, 4, CONTEXT, dtype=torch.float64)


def attend(layer: MultiHeadAttention, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    """One sample, one head and one query at a time, over the valid tokens alone."""
    d = DIM // HEADS
    rows = []
    for i in range(len(x)):
        valid = context[i] if mask is None else context[i][mask[i]]
        q, k, v = x[i] @ layer.query.weight.T, valid @ layer.key.weight.T, valid @ layer.value.weight.T
        heads = []
        for h in range(HEADS):
            part = slice(h * d, (h + 1) * d)
            weights = torch.exp(q[:, part] @ k[:, part].T / d**0.5)
            heads.append(weights @ v[:, part] / weights.sum(1, keepdim=True))
        rows.append(torch.cat(heads, dim=1) @ layer.out.weight.T + layer.out.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_cross_attention_is_its_formula(mask: Tensor | None) -> None:
    layer = randomise(MultiHeadAttention(DIM, HEADS, context_dim=CONTEXT)).double()
    x, context = inputs()
    torch.testing.assert_close(layer(x, context, mask), attend(layer, x, context, mask), rtol=1e-12, atol=1e-12)


def test_self_attention_is_attention_to_itself() -> None:
    layer = randomise(MultiHeadAttention(DIM, HEADS)).double()
    x, _ = inputs()
    torch.testing.assert_close(layer(x), attend(layer, x, x), rtol=1e-12, atol=1e-12)


def test_masked_tokens_have_no_effect_to_the_bit() -> None:
    layer = randomise(MultiHeadAttention(DIM, HEADS, context_dim=CONTEXT)).double()
    x, context = inputs()
    for value in (0.0, 1e3, -1e30):
        other = torch.where(MASK[:, :, None], context, value)
        assert torch.equal(layer(x, other, MASK), layer(x, context, MASK))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_sample_without_valid_tokens_attends_to_nothing(dtype: torch.dtype) -> None:
    layer = randomise(MultiHeadAttention(DIM, HEADS, context_dim=CONTEXT)).to(dtype)
    x, context = (value.to(dtype) for value in inputs())
    mask = torch.stack([MASK[0], torch.zeros(4, dtype=torch.bool)])
    y = layer(x, context, mask)
    assert torch.equal(y[1], layer.out.bias.expand(7, DIM))
    torch.testing.assert_close(y[:1], layer(x[:1], context[:1], mask[:1]))
    y.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_identity_of_some_samples_gives_their_values() -> None:
    layer = randomise(MultiHeadAttention(DIM, HEADS)).double()
    x, _ = inputs()
    y = layer(x, identity=torch.tensor([False, True]))
    torch.testing.assert_close(y[0], layer(x)[0])
    torch.testing.assert_close(y[1], layer.out(layer.value(x[1])))


def feed_forward(layer: GatedFeedForward, x: Tensor) -> Tensor:
    weight, bias = layer.linear_in.weight, layer.linear_in.bias
    a, g = x @ weight[: 4 * DIM].T + bias[: 4 * DIM], x @ weight[4 * DIM :].T + bias[4 * DIM :]
    return (a * g * (1 + torch.erf(g / 2**0.5)) / 2) @ layer.linear_out.weight.T + layer.linear_out.bias


def test_feed_forward_is_gated_by_its_second_half() -> None:
    layer = randomise(GatedFeedForward(DIM)).double()
    x, _ = inputs()
    torch.testing.assert_close(layer(x), feed_forward(layer, x), rtol=1e-12, atol=1e-12)


def test_block_is_self_attention_then_cross_attention_then_feed_forward() -> None:
    block = randomise(TransformerBlock(DIM, HEADS, context_dim=CONTEXT, eps=1e-2)).double()
    x, context = inputs()

    def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-2).sqrt() * norm.weight + norm.bias

    h = normed(x, block.norm_self)
    expected = x + attend(block.self_attention, h, h)
    expected = expected + attend(block.cross_attention, normed(expected, block.norm_cross), context, MASK)
    expected = expected + feed_forward(block.feed_forward, normed(expected, block.norm_feed_forward))
    torch.testing.assert_close(block(x, context, MASK), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("num_heads", [0, 5])
def test_heads_that_do_not_divide(num_heads: int) -> None:
    with pytest.raises(ValueError, match=rf"num_heads \({num_heads}\) must divide channels \(12\)"):
        MultiHeadAttention(DIM, num_heads)
