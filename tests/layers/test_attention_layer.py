"""Attention and its two head orders against einsum and softmax."""

import pytest
import torch

from diffusion_labs.layers import attention, merge_heads, split_heads_interleaved, split_heads_stacked

BATCH, LENGTH, HEADS, WIDTH = 2, 5, 3, 4


@pytest.mark.parametrize("parts", [2, 3])
def test_head_orders_place_each_channel_where_the_order_says(parts: int) -> None:
    x = torch.randn(BATCH, LENGTH, HEADS * parts * WIDTH)
    interleaved = split_heads_interleaved(x, HEADS, parts)
    stacked = split_heads_stacked(x, HEADS, parts)

    assert len(interleaved) == len(stacked) == parts
    for head in range(HEADS):
        for part in range(parts):
            first = (head * parts + part) * WIDTH
            assert torch.equal(interleaved[part][:, head], x[:, :, first : first + WIDTH])
            first = (part * HEADS + head) * WIDTH
            assert torch.equal(stacked[part][:, head], x[:, :, first : first + WIDTH])


@pytest.mark.parametrize("split", [split_heads_interleaved, split_heads_stacked])
def test_merge_inverts_split_of_one_part(split) -> None:
    x = torch.randn(BATCH, LENGTH, HEADS * WIDTH)
    (heads,) = split(x, HEADS, 1)
    assert heads.shape == (BATCH, HEADS, LENGTH, WIDTH)
    assert torch.equal(merge_heads(heads), x)


def test_attention_is_the_formula_of_the_paper() -> None:
    q, k, v = torch.randn(3, BATCH, HEADS, LENGTH, WIDTH, dtype=torch.float64)
    weights = torch.softmax(torch.einsum("bhnd,bhmd->bhnm", q, k) / WIDTH**0.5, dim=-1)
    torch.testing.assert_close(attention(q, k, v), torch.einsum("bhnm,bhmd->bhnd", weights, v))


def test_masked_keys_are_as_good_as_absent() -> None:
    q, k, v = torch.randn(3, BATCH, HEADS, LENGTH, WIDTH, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False], [False, False, False, True, False]])
    result = attention(q, k, v, mask)
    for i in range(BATCH):
        alone = attention(q[i : i + 1], k[i : i + 1, :, mask[i]], v[i : i + 1, :, mask[i]])
        torch.testing.assert_close(result[i : i + 1], alone)


@pytest.mark.parametrize("each", [False, True])
def test_a_query_without_keys_attends_to_nothing(each: bool) -> None:
    """Zeros, and gradients that are zero and not NaN; the other queries are as before."""
    q, k, v = (torch.randn(BATCH, HEADS, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.ones(BATCH, LENGTH, LENGTH, dtype=torch.bool) if each else torch.ones(BATCH, LENGTH, dtype=torch.bool)
    mask[1, 2 if each else slice(None)] = False
    result = attention(q, k, v, mask)
    nothing = ~mask.reshape(BATCH, -1, LENGTH).any(2).expand(BATCH, LENGTH)
    rows = result.transpose(1, 2)
    assert torch.equal(rows[nothing], torch.zeros_like(rows[nothing]))
    torch.testing.assert_close(rows[~nothing], attention(q, k, v).transpose(1, 2)[~nothing])
    result.square().sum().backward()
    assert (q.grad.transpose(1, 2)[nothing] == 0).all()
    assert all(value.grad.isfinite().all() for value in (k, v))
