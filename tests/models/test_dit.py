"""The diffusion Transformer: the paper's sizes, its formulas, and what it refuses."""

import math
import re

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.layers import ModulatedTransformerBlock, RotaryPositions, modulation, sinusoidal_positions
from diffusion_labs.models.transformer.heads import LearnedVariancePatchHead, PatchHead
from tests.catalogue import randomise

TINY = {"in_channels": 2, "size": (4, 6), "dim": 8, "depth": 2, "num_heads": 2, "classes": {"class": 3}}

# Millions of parameters, Table 4 of the paper; DiT-XL/2 to the last one, as its training prints it
PARAMETERS = {"S/2": 33, "S/4": 33, "S/8": 33, "B/2": 130, "B/4": 130, "B/8": 131}
PARAMETERS |= {"L/2": 458, "L/4": 458, "L/8": 459, "XL/2": 675, "XL/4": 675, "XL/8": 676}


def test_every_size_has_its_count() -> None:
    assert {f"DiT-{name}" for name in PARAMETERS} == dl.DITS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_as_many_parameters_as_in_the_paper(name: str) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in dl.dit(**dl.DITS[f"DiT-{name}"]).parameters())
    assert abs(count / 1e6 - PARAMETERS[name]) < 1  # rounded there, some up and some down
    assert name != "XL/2" or count == 675_129_632


@pytest.mark.parametrize("learned_variance", [False, True])
def test_predicts_zero_until_it_is_trained(learned_variance: bool) -> None:
    network = dl.dit(**TINY, learned_variance=learned_variance)
    x = torch.randn(3, 2, 4, 6)
    output = network(x, torch.arange(3), {"class": torch.arange(3)})
    assert torch.equal(output.prediction, torch.zeros_like(x))
    if learned_variance:
        assert torch.equal(output.variance_value, torch.full_like(x, 0.5))  # between the bounds
    else:
        assert output.variance_value is None
    # And it is not stuck there: the gradient reaches the head
    (network(x, torch.arange(3)).prediction - x).square().mean().backward()
    assert network.head.linear.weight.grad.abs().max() > 0


def test_positions_are_sines_and_cosines_of_columns_and_rows() -> None:
    positions = sinusoidal_positions(3, 5, 8).float()
    for row in range(3):
        for column in range(5):
            expected = [f(x / 100**i) for x in (column, row) for f in (math.sin, math.cos) for i in (0, 1)]
            torch.testing.assert_close(positions[row * 5 + column], torch.tensor(expected))
    with pytest.raises(ValueError, match=r"dim \(6\) must be a multiple of 4"):
        sinusoidal_positions(3, 5, 6)


def test_rotated_products_depend_on_the_difference_of_positions_alone() -> None:
    rotary = RotaryPositions((3, 4), 8)
    q, k = torch.randn(2, 1, 1, 1, 8).double()
    turned = [rotary(vector.expand(1, 1, 12, 8)).reshape(3, 4, 8) for vector in (q, k)]
    torch.testing.assert_close(turned[0].norm(dim=-1), q.norm().expand(3, 4))
    products = torch.einsum("rcd,sed->rcse", *turned)
    torch.testing.assert_close(products[:2, :3, :2, :3], products[1:, 1:, 1:, 1:])
    assert products.flatten().round(decimals=6).unique().numel() == 5 * 7  # and on all of it
    # A column further is an angle of 1 between the first coordinates of the two halves
    angle = torch.atan2(turned[0][0, 1, 4], turned[0][0, 1, 0]) - torch.atan2(q[0, 0, 0, 4], q[0, 0, 0, 0])
    torch.testing.assert_close(angle.remainder(2 * math.pi), torch.tensor(1.0).double())


def test_options_of_later_networks_are_their_layers() -> None:
    network = randomise(dl.dit(**TINY, qk_norm=True, rotary=True, swiglu=True)).double()
    attention, feed_forward = network.blocks[0].attention, network.blocks[0].feed_forward
    x, rotary = torch.randn(2, 6, 8).double(), RotaryPositions((2, 3), 4)
    projected = (x @ attention.qkv.weight.mT + attention.qkv.bias).view(2, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    for actual, raw, norm in zip(attention.heads(x), projected, (attention.norm_q, attention.norm_k), strict=False):
        normed = raw / (raw.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm[0].weight
        torch.testing.assert_close(actual, rotary(normed))
    torch.testing.assert_close(attention.heads(x)[2], projected[2])

    a, g = (x @ feed_forward.linear_in.weight.mT + feed_forward.linear_in.bias).split(21, dim=2)
    expected = (a * g * g.sigmoid()) @ feed_forward.linear_out.weight.mT + feed_forward.linear_out.bias
    torch.testing.assert_close(feed_forward(x), expected)


@pytest.mark.parametrize("head_class", [PatchHead, LearnedVariancePatchHead])
def test_tokens_become_patches_with_the_channel_fastest(head_class: type) -> None:
    head = randomise(head_class(6, 3, patch_size=2, modulation=modulation(5, 6, 2))).double()
    h, embedding = torch.randn(2, 4 * 3, 6).double(), torch.randn(2, 5).double()
    output = head(h, embedding, (4, 3), torch.float64)

    linear = head.modulation[1]
    silu = embedding / (1 + torch.exp(-embedding))
    shift, scale = (silu @ linear.weight.mT + linear.bias).split(6, dim=1)
    normed = (h - h.mean(2, keepdim=True)) / (h.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    values = (normed * (1 + scale[:, None]) + shift[:, None]) @ head.linear.weight.mT + head.linear.bias
    channels = values.shape[2] // 4
    expected = torch.empty(2, channels, 8, 6, dtype=torch.float64)
    for row in range(8):
        for column in range(6):
            token, pixel = (row // 2) * 3 + column // 2, (row % 2) * 2 + column % 2
            expected[:, :, row, column] = values[:, token, pixel * channels : (pixel + 1) * channels]
    torch.testing.assert_close(output.prediction, expected[:, :3])
    if channels == 6:
        torch.testing.assert_close(output.variance_value, (expected[:, 3:] + 1) / 2)


def test_where_the_attention_is_the_identity_each_token_sees_itself() -> None:
    block = randomise(ModulatedTransformerBlock(8, 2, modulation=modulation(4, 8, 6))).double()
    attention = block.attention
    x = torch.randn(3, 5, 8).double()
    v = x @ attention.qkv.weight[16:].mT + attention.qkv.bias[16:]
    expected = v @ attention.out.weight.mT + attention.out.bias
    actual = attention(x, torch.tensor([True, False, True]))
    torch.testing.assert_close(actual[[0, 2]], expected[[0, 2]])
    torch.testing.assert_close(actual[1], attention(x)[1])

    # Of the network: a column for each block, and the samples do not see each other
    network = randomise(dl.dit(**TINY))
    noisy, t = torch.randn(2, 2, 4, 6), torch.tensor([3, 900])
    identity = torch.tensor([[True, False], [False, False]])
    perturbed = network(noisy, t, {"identity_attention": identity}).prediction
    plain = network(noisy, t).prediction
    torch.testing.assert_close(perturbed[1], plain[1])
    assert (perturbed[0] - plain[0]).abs().max() > 1e-3
    guided = dl.PerturbedAttentionGuidance(network, blocks=["blocks.0"], guidance_scale=3.0).eval()
    both = network(noisy, t, {"identity_attention": identity[[0, 0]]}).prediction
    torch.testing.assert_close(guided(noisy, t).prediction, both + 3 * (plain - both))


def test_an_absent_class_is_the_null_class() -> None:
    network = randomise(dl.dit(**TINY))
    assert network.null_conditions == {"class": 3}
    x, t = torch.randn(2, 2, 4, 6), torch.tensor([0, 999])
    assert torch.equal(network(x, t).prediction, network(x, t, {"class": torch.tensor([3, 3])}).prediction)
    assert (network(x, t).prediction - network(x, t, {"class": torch.tensor([0, 1])}).prediction).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 4}, "patch_size (4) must divide size ((4, 6))"),
        ({"num_heads": 3}, "num_heads (3) must divide dim (8)"),
        ({"depth": 0}, "depth (0) must be at least 1"),
        ({"dim": 6, "num_heads": 1}, "dim (6) must be a multiple of 4"),
        ({"classes": {"a.b": 3}}, "the condition name 'a.b' must be a Python identifier"),
    ],
)
def test_sizes_that_do_not_fit(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.dit(**{**TINY, **change})


def test_inputs_that_do_not_fit() -> None:
    network, x, t = dl.dit(**TINY), torch.randn(2, 2, 4, 6), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"x has shape \[2, 2, 4, 4\], but must be \[2, 2, 4, 6\]"):
        network(x[..., :4], t)
    with pytest.raises(ValueError, match=r"x has dtype torch.int64, but must be floating point"):
        network(x.long(), t)
    with pytest.raises(ValueError, match=r"timestep has shape \[1\], but must be \[2\]"):
        network(x, t[:1])
    with pytest.raises(ValueError, match=r"conditional_inputs has \['label'\]"):
        network(x, t, {"label": t})
    with pytest.raises(ValueError, match=r"'identity_attention' is torch.bool of shape \[2, 3\]"):
        network(x, t, {"identity_attention": torch.zeros(2, 3, dtype=torch.bool)})
