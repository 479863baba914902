"""Laws of the latent U-Net: conditions of each kind, masks, guidance, checkpointing, precision, errors."""

import copy
import pickle
import re

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.models.adm_unet.blocks import Context
from diffusion_labs.models.adm_unet.transformer import SpatialTransformer
from tests.catalogue import randomise

SMALL = {"in_channels": 2, "model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "num_groups": 4}
ATTENTION = {"attention_levels": (1,), "num_heads": 2, "depth": 2, "tokens": {"text": 6}}
EVERYTHING = {"classes": {"class": 4}, "vectors": {"pooled": 5}, "numbers": {"sizes": 2}, "frequency_dim": 8}
X, T = torch.randn(3, 2, 8, 8), torch.tensor([0, 500, 999])
MASK = torch.tensor([[True, True, False, False], [True] * 4, [True, False, True, False]])


def build(**options) -> nn.Module:
    return randomise(dl.ldm_unet(**(SMALL | ATTENTION | options)))


def conditions() -> dict[str, Tensor]:
    return {
        "text": torch.randn(3, 4, 6),
        "text_mask": MASK,
        "class": torch.tensor([0, 3, 2]),
        "pooled": torch.randn(3, 5),
        "sizes": torch.tensor([[512, 512], [64, 128], [0, 8]]),
    }


def test_predicts_zero_and_its_transformers_are_the_identity_at_the_start() -> None:
    network = dl.ldm_unet(**SMALL, **ATTENTION)
    assert torch.equal(network(X, T, {"text": torch.randn(3, 4, 6)}).prediction, torch.zeros_like(X))
    block = SpatialTransformer(8, 2, context_dim=6, num_groups=4)
    h = torch.randn(3, 8, 4, 4)
    assert torch.equal(block(h, torch.zeros(3, 1), Context(torch.randn(3, 4, 6), None)), h)


def test_spatial_transformer_is_its_formula() -> None:
    block = randomise(SpatialTransformer(8, 2, context_dim=6, depth=2, num_groups=4, eps=1e-2)).double()
    x, tokens = torch.randn(3, 8, 2, 5).double(), torch.randn(3, 4, 6).double()
    groups = x.reshape(3, 4, -1)
    groups = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-2).sqrt()
    h = groups.reshape(3, 8, -1) * block.norm.weight[:, None] + block.norm.bias[:, None]
    h = torch.einsum("oc,bcn->bno", block.proj_in.weight, h) + block.proj_in.bias
    for part in block.blocks:
        h = part(h, tokens, MASK)
    h = torch.einsum("oc,bnc->bon", block.proj_out.weight, h) + block.proj_out.bias[:, None]
    y = block(x, torch.zeros(3, 1), Context(tokens, MASK))
    torch.testing.assert_close(y, x + h.reshape(x.shape), rtol=1e-11, atol=1e-11)


# Conditions


def test_each_condition_changes_the_prediction() -> None:
    network = build(**EVERYTHING)
    everything = conditions()
    full = network(X, T, everything).prediction
    for name in everything:
        less = {other: value for other, value in everything.items() if other != name}
        changed = (network(X, T, less).prediction - full).abs().flatten(1).amax(1)
        assert torch.equal(changed > 1e-3, torch.tensor([True, name != "text_mask", True])), name


def test_an_absent_condition_is_one_that_can_be_given() -> None:
    network = build(**EVERYTHING)
    null = {
        "text": torch.zeros(3, 4, 6),
        "text_mask": torch.tensor([True, False, False, False]).expand(3, 4),
        "class": torch.full((3,), network.null_conditions["class"]),
        "pooled": torch.zeros(3, 5),
        "sizes": torch.zeros(3, 2, dtype=torch.long),
    }
    torch.testing.assert_close(network(X, T, null).prediction, network(X, T).prediction)
    assert network.condition_shapes == {"text": (None, 6), "class": (), "pooled": (5,), "sizes": (2,)}


def test_padding_has_no_effect_to_the_bit_and_valid_tokens_are_a_set() -> None:
    network = build()
    given = {"text": torch.randn(3, 4, 6), "text_mask": MASK}
    prediction = network(X, T, given).prediction
    other = torch.where(MASK[:, :, None], given["text"], -1e4)
    assert torch.equal(network(X, T, given | {"text": other}).prediction, prediction)
    for i in range(3):
        alone = network(X[i : i + 1], T[i : i + 1], {"text": given["text"][i : i + 1, MASK[i]].flip(1)}).prediction
        torch.testing.assert_close(alone, prediction[i : i + 1], rtol=1e-4, atol=1e-5)


def test_two_token_conditions_are_one_longer_one() -> None:
    two, one = build(tokens={"text": 6, "layout": 6}), build()
    two.load_state_dict(one.state_dict())
    text, layout = torch.randn(3, 4, 6), torch.randn(3, 2, 6)
    mask = torch.cat([MASK, torch.ones(3, 2, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        two(X, T, {"text": text, "text_mask": MASK, "layout": layout}).prediction,
        one(X, T, {"text": torch.cat([text, layout], dim=1), "text_mask": mask}).prediction,
    )


def test_concatenation_and_hybrid_conditioning() -> None:
    """The mask and the masked latent beside x; with tokens or without, and each sample its own."""
    mask, image = (torch.rand(3, 1, 8, 8) > 0.5).float(), torch.randn(3, 2, 8, 8)
    given = {"mask": mask, "masked_image": image}
    for tokens, rest in (({}, {}), ({"text": 6}, {"text": torch.randn(3, 4, 6), "text_mask": MASK})):
        network = build(in_channels=5, out_channels=2, tokens=tokens, depth=1)
        model = dl.InPainting(network, 2)
        prediction = model(X, T, given | rest).prediction
        assert prediction.shape == X.shape
        # All that it got is in the channels, in the order of LDM's inpainting network
        by_hand = network(torch.cat([X, image, mask], dim=1), T, rest).prediction
        torch.testing.assert_close(prediction, by_hand)
        assert (model(X, T, given | rest | {"mask": 1 - mask}).prediction - prediction).abs().max() > 1e-3


def test_without_tokens_it_is_the_unet_of_adm_with_the_options_of_ldm() -> None:
    ours = dl.ldm_unet(**SMALL, attention_levels=(1,), num_heads=2)
    adm = dl.adm_unet(**SMALL, attention_levels=(1,), num_heads=2, scale_shift=False, residual_resampling=False)
    adm.load_state_dict(randomise(ours).state_dict())
    assert torch.equal(ours(X, T).prediction, adm(X, T).prediction)


# Guidance


def test_classifier_free_guidance_with_tokens_and_masks() -> None:
    network = build().eval()
    given = {"text": torch.randn(3, 4, 6), "text_mask": MASK}
    negative = {"negative_text": torch.randn(3, 2, 6)}
    c, u = network(X, T, given).prediction, network(X, T).prediction
    n = network(X, T, {"text": negative["negative_text"]}).prediction
    model = dl.CFGuidance(network, {"text": 0.1}, guidance_scale=3.0).eval()
    torch.testing.assert_close(model(X, T, given).prediction, u + 3 * (c - u), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(X, T, given | negative).prediction, n + 3 * (c - n), rtol=1e-3, atol=1e-4)


def test_perturbed_attention_is_the_network_with_patched_self_attention() -> None:
    network = build().eval()
    names = ("encoder.2.1.blocks.0", "encoder.2.1.blocks.1", "middle.1.blocks.0", "middle.1.blocks.1")
    assert network.attention_blocks[:4] == names
    given = {"text": torch.randn(3, 4, 6), "text_mask": MASK}
    patched = copy.deepcopy(network)
    layer = patched.get_submodule("middle.1.blocks.1.self_attention")
    layer.forward = lambda x, identity=None: layer.out(layer.value(x))
    y, p = network(X, T, given).prediction, patched(X, T, given).prediction
    assert (y - p).abs().max() > 1e-3
    model = dl.PerturbedAttentionGuidance(network, guidance_scale=2.5, blocks=["middle.1.blocks.1"]).eval()
    torch.testing.assert_close(model(X, T, given).prediction, p + 2.5 * (y - p), rtol=1e-3, atol=1e-4)


# Gradients, compilation, precision


def gradients(network: nn.Module, given: dict[str, Tensor]) -> list[Tensor]:
    network.zero_grad()
    network(X, T, given).prediction.square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_every_parameter_gets_a_gradient_and_checkpointing_the_same_one() -> None:
    given = conditions()
    plain = gradients(build(**EVERYTHING), given)
    assert all(gradient.any() for gradient in plain)
    checkpointed = gradients(build(**EVERYTHING, checkpointing=True), given)
    assert all(torch.equal(*pair) for pair in zip(plain, checkpointed, strict=True))
    # Without conditions every parameter still takes part, as DistributedDataParallel needs
    assert len(gradients(build(**EVERYTHING), {})) == len(plain)


@pytest.mark.slow
def test_compiles_as_one_graph_with_everything() -> None:
    network = build(**EVERYTHING, channel_mult=(1,), attention_levels=())  # small: compilation takes long
    given = conditions()
    given["identity_attention"] = torch.rand(3, len(network.attention_blocks)) > 0.5
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, T, given).prediction, network(X, T, given).prediction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precisions_agree_and_copies_are_equal(dtype: torch.dtype) -> None:
    network = build(**EVERYTHING)
    given = conditions()
    exact = network(X, T, given).prediction
    network.to(dtype)
    prediction = network(X.to(dtype), T, given).prediction
    tolerance = {torch.float64: 1e-5, torch.bfloat16: 0.15, torch.float16: 0.03}[dtype]
    assert prediction.dtype == dtype
    assert (prediction - exact).square().mean().sqrt() < tolerance * exact.std()
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(X.to(dtype), T, given).prediction, prediction)


def test_torso_in_half_precision_with_embeddings_and_head_in_float32() -> None:
    full, mixed = build(**EVERYTHING), build(**EVERYTHING, dtype=torch.float16)
    given = conditions()
    exact, prediction = full(X, T, given).prediction, mixed(X, T, given).prediction
    assert prediction.dtype == mixed.embedding.joint.linear_in.weight.dtype == torch.float32
    assert (prediction - exact).square().mean().sqrt() < 0.03 * exact.std()


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_mult": ()}, "channel_mult (()) must hold at least one number"),
        ({"attention_levels": (2,)}, "attention_levels ((2,)) must be between 0 and 1"),
        ({"depth": (1,)}, "depth ((1,)) has 1 numbers, but channel_mult 2 levels"),
        ({"depth": (1, 0)}, "depth ((1, 0)) must be at least 1 on level 1, which has attention"),
        ({"depth": 0}, "depth (0) must be at least 1 on level 1"),
        ({"num_heads": 3}, "num_heads (3) must divide channels (16)"),
        ({"head_channels": 6}, "head_channels (6) must divide the channels (16)"),
        ({"attention_levels": (), "middle_attention": False}, "tokens ({'text': 6}) enter by attention"),
        ({"tokens": {"a": 4, "b": 5}}, "tokens ({'a': 4, 'b': 5}) must all have one width"),
        ({"vectors": {"text": 4}}, "the condition name 'text' is used twice"),
        ({"numbers": {"type": 4}}, "the condition name 'type' must be a Python identifier"),
    ],
)
def test_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.ldm_unet(**(SMALL | ATTENTION | options))


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="heads_upsample"):
        dl.ldm_unet(**SMALL, attention_levels=(1,), heads_upsample=2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", torch.zeros(3, 4, 5), "'text' has shape [3, 4, 5], but must be [3, n, 6]"),
        ("text_mask", torch.ones(3, 4), "'text_mask' is torch.float32 of shape [3, 4]"),
        ("pooled", torch.zeros(3, 4), "'pooled' has shape [3, 4], but must be [3, 5]"),
        ("sizes", torch.zeros(3), "'sizes' has shape [3], but must be [3, 2]"),
    ],
)
def test_conditions_of_wrong_shapes(name: str, value: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**EVERYTHING)(X, T, conditions() | {name: value})
