"""What Transformers with text promise. Their functions are those of diffusers: tests/interop/test_pixart, _mmdit."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.layers import JointTransformerBlock, RMSNorm, Stream, TableModulation
from tests.catalogue import randomise

SIZES = {"in_channels": 2, "dim": 8, "depth": 2, "num_heads": 2, "tokens": {"text": 3}, "classes": {"class": 3}}
NETWORKS: dict[str, Callable[..., Any]] = {
    "pixart": lambda **options: dl.pixart(**{**SIZES, "size": (4, 6), "vectors": {"pooled_text": 5}, **options}),
    "mmdit": lambda **options: dl.mmdit(
        **{**SIZES, "max_size": 8, "qk_norm": True, "dual_attention": [0], "vectors": {"pooled_text": 5}, **options}
    ),
    "uvit": lambda: dl.uvit(**{**SIZES, "depth": 3, "size": (4, 6), "vectors": {"pooled_text": 5}}),
}
generator = torch.Generator().manual_seed(0)
X, T = torch.randn(2, 2, 4, 6, generator=generator), torch.tensor([3, 900])
TEXT = torch.randn(2, 4, 3, generator=generator)
MASK = torch.tensor([[True, True, False, True], [False, False, True, False]])


@pytest.mark.parametrize("name", ["pixart", "mmdit"])
def test_starts_with_zero_and_is_not_stuck_there(name: str) -> None:
    network = NETWORKS[name]()
    output = network(X, T, {"text": TEXT, "class": torch.tensor([0, 2])})
    assert torch.equal(output.prediction, torch.zeros_like(X))
    (output.prediction - X).square().mean().backward()
    assert network.head.linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient_also_without_conditions(name: str) -> None:
    network = randomise(NETWORKS[name]())
    for conditions in ({}, {"text": TEXT, "text_mask": MASK, "class": torch.tensor([0, 2])}):
        network.zero_grad()
        network(X, T, conditions).prediction.square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_tokens_have_no_effect_and_absent_text_is_one_token_of_zeros(name: str) -> None:
    network = randomise(NETWORKS[name]())
    masked = network(X, T, {"text": TEXT, "text_mask": MASK}).prediction
    other = torch.where(MASK[:, :, None], TEXT, 100.0)
    torch.testing.assert_close(network(X, T, {"text": other, "text_mask": MASK}).prediction, masked)
    assert (network(X, T, {"text": TEXT}).prediction - masked).abs().max() > 1e-3
    torch.testing.assert_close(network(X, T).prediction, network(X, T, {"text": torch.zeros(2, 1, 3)}).prediction)


@pytest.mark.parametrize("name", ["pixart", "mmdit"])
def test_identity_is_of_samples_and_blocks_and_of_the_image_alone(name: str) -> None:
    network, conditions = randomise(NETWORKS[name]()), {"text": TEXT, "text_mask": MASK}
    identity = torch.tensor([[True, False], [False, False]])
    plain = network(X, T, conditions).prediction
    perturbed = network(X, T, {**conditions, "identity_attention": identity}).prediction
    torch.testing.assert_close(perturbed[1], plain[1])
    assert (perturbed[0] - plain[0]).abs().max() > 1e-3
    alone = X[..., :2, :2]  # one patch, which sees itself and the text anyway
    both = {**conditions, "identity_attention": torch.ones(2, 2, dtype=torch.bool)}
    torch.testing.assert_close(network(alone, T, both).prediction, network(alone, T, conditions).prediction)


@pytest.mark.parametrize("name", NETWORKS)
def test_guidance_is_that_of_the_predictions(name: str) -> None:
    """Without text, and without attention, as with U-Nets."""
    network, conditions = randomise(NETWORKS[name]()), {"text": TEXT, "text_mask": MASK}
    plain, without = network(X, T, conditions).prediction, network(X, T).prediction
    guided = dl.CFGuidance(network, {"text": 0.1}, guidance_scale=3.0).eval()
    torch.testing.assert_close(guided(X, T, conditions).prediction, without + 3 * (plain - without))
    perturbed = {**conditions, "identity_attention": torch.eye(len(network.blocks), dtype=torch.bool)[[1, 1]]}
    weak = network(X, T, perturbed).prediction
    guided = dl.PerturbedAttentionGuidance(network, blocks=["blocks.1"], guidance_scale=2.0).eval()
    torch.testing.assert_close(guided(X, T, conditions).prediction, weak + 2 * (plain - weak))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pixart", {"tokens": {}}, "tokens must name at least one condition"),
        ("pixart", {"numbers": {"sizes": 3}}, "numbers ({'sizes': 3}) are 3, which must divide dim (8)"),
        ("pixart", {"dim": 6}, "dim (6) must be a multiple of 4"),
        ("pixart", {"patch_size": 4}, "patch_size (4) must divide size ((4, 6))"),
        ("mmdit", {"tokens": {}}, "tokens must name at least one condition"),
        ("mmdit", {"depth": 0, "dual_attention": []}, "depth (0) must be at least 1"),
        ("mmdit", {"dual_attention": (2,)}, "dual_attention ((2,)) must be numbers of blocks, 0 to 1"),
        ("mmdit", {"num_heads": 3}, "num_heads (3) must divide dim (8)"),
    ],
)
def test_sizes_that_do_not_fit(name: str, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NETWORKS[name](**change)


def test_inputs_that_do_not_fit() -> None:
    network = NETWORKS["mmdit"]()
    with pytest.raises(ValueError, match=r"x has shape \[2, 2, 4, 5\], but must be \[2, 2, height, width\] with sides"):
        network(X[..., :5], T)
    with pytest.raises(ValueError, match=r"x has 2 x 6 patches, but the network has positions for at most 4 x 4"):
        network(torch.cat([X, X], -1), T)
    with pytest.raises(ValueError, match=r"'text' has shape \[2, 4, 2\], but must be \[2, n, 3\]"):
        network(X, T, {"text": TEXT[..., :2]})


# The layers that they share


def test_a_table_is_added_to_what_blocks_share() -> None:
    table = TableModulation(3, 2)
    shared, narrow = torch.randn(4, 6), torch.randn(4, 3)
    torch.testing.assert_close(table(shared), shared + table.table.flatten())
    torch.testing.assert_close(table(narrow), torch.cat([narrow, narrow], 1) + table.table.flatten())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rms_norm_is_its_formula_rounded_once(dtype: torch.dtype) -> None:
    norm = randomise(RMSNorm(6, eps=1e-2)).to(dtype)
    x, wide = torch.randn(2, 3, 6).to(dtype), torch.promote_types(dtype, torch.float32)
    exact = x.to(wide) / (x.to(wide).square().mean(-1, keepdim=True) + 1e-2).sqrt() * norm.weight.to(wide)
    torch.testing.assert_close(norm(x), exact.to(dtype))


def test_in_a_joint_block_everyone_attends_to_everyone_but_the_masked() -> None:
    """The image's half of the block, head by head and query by query."""
    block = randomise(JointTransformerBlock(*(Stream(8, 2, embed_dim=5, qk_norm=RMSNorm) for _ in range(2)))).double()
    x, context, embedding = (torch.randn(2, n, 8).double() for n in (3, 4, 1))
    embedding, identity = embedding[:, 0, :5], torch.tensor([False, True])

    def part(stream: nn.Module, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        modulations = (embedding * embedding.sigmoid()) @ stream.modulation[1].weight.mT + stream.modulation[1].bias
        modulations = modulations.view(2, 6, 1, 8)
        normed = nn.functional.layer_norm(tokens, (8,), eps=1e-6) * (1 + modulations[:, 1]) + modulations[:, 0]
        qkv = normed @ stream.attention.qkv.weight.mT + stream.attention.qkv.bias
        q, k, v = qkv.view(2, -1, 3, 2, 4).unbind(2)
        return [stream.attention.norm_q(q), stream.attention.norm_k(k), v], modulations

    (q, *own), modulations = part(block.image, x)
    (_, *others), _ = part(block.context, context)
    h = torch.zeros(2, 3, 2, 4).double()
    for sample in range(2):
        for query in range(3):
            seen = [query] if identity[sample] else [0, 1, 2]
            k, v = (
                torch.cat([image[sample, seen], text[sample, MASK[sample]]])
                for image, text in zip(own, others, strict=True)
            )
            weights = torch.einsum("hd,khd->kh", q[sample, query], k).div(2).softmax(0)
            h[sample, query] = torch.einsum("kh,khd->hd", weights, v)
    expected = x + modulations[:, 2] * block.image.attention.out(h.flatten(2))
    normed = nn.functional.layer_norm(expected, (8,), eps=1e-6) * (1 + modulations[:, 4]) + modulations[:, 3]
    expected = expected + modulations[:, 5] * block.image.feed_forward(normed)
    torch.testing.assert_close(block(x, context, embedding, MASK, identity)[0], expected)
