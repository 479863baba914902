"""Perturbed-attention guidance on the U-Net."""

import copy

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests import catalogue

X, T = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
GIVEN = {"class": torch.tensor([0, 1, 2])}
HEADS = 2


def unet(**options) -> nn.Module:
    return catalogue.network(num_heads=HEADS, **options).eval()


def own_values(x: Tensor, block: nn.Module) -> Tensor:
    """The block with attention replaced by the values, without its helpers: channels are ``[head, part, d]``."""
    qkv = block.qkv(block.norm(x).flatten(2))
    v = qkv.reshape(len(x), HEADS, 3, -1, qkv.shape[2])[:, :, 2].flatten(1, 2)
    return x + block.proj_out(v).view_as(x)


def patched(network: nn.Module, names: list[str]) -> nn.Module:
    network = copy.deepcopy(network)
    for name in names:
        block = network.get_submodule(name)
        block.forward = lambda x, embedding, context, block=block: own_values(x, block)
    return network


def test_attention_blocks_are_named_from_the_first_to_the_last() -> None:
    assert unet().attention_blocks == ("encoder.2.1", "middle.1", "decoder.0.1", "decoder.1.1")
    assert unet(middle_attention=False, attention_levels=()).attention_blocks == ()


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (["middle"], ["middle.1"]),
        (["encoder.2", "decoder.1.1"], ["encoder.2.1", "decoder.1.1"]),
        (["encoder", "middle", "decoder"], ["encoder.2.1", "middle.1", "decoder.0.1", "decoder.1.1"]),
    ],
)
@pytest.mark.parametrize("options", [{}, {"tokens": {"text": 6}}, {"learned_variance": True}], ids=str)
def test_the_perturbed_pass_is_the_network_with_patched_attention(blocks, names, options) -> None:
    """y + s (y - p) with the paper's s, and p from a network whose attention blocks were rewritten."""
    network = unet(**options)
    s = 1.5
    model = dl.PerturbedAttentionGuidance(network, guidance_scale=1 + s, blocks=blocks).eval()
    y, p = network(X, T, GIVEN), patched(network, names)(X, T, GIVEN)
    assert (y.prediction - p.prediction).norm() > 0.01 * y.prediction.norm()
    output = model(X, T, GIVEN)
    torch.testing.assert_close(
        output.prediction, y.prediction + s * (y.prediction - p.prediction), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(output.variance_value, y.variance_value)


def test_samples_choose_their_identities() -> None:
    network = unet()
    identity = torch.zeros(3, 4, dtype=torch.bool)
    identity[1, 1] = True
    actual = network(X, T, GIVEN | {"identity_attention": identity}).prediction
    plain, perturbed = network(X, T, GIVEN).prediction, patched(network, ["middle.1"])(X, T, GIVEN).prediction
    torch.testing.assert_close(actual, torch.stack([plain[0], perturbed[1], plain[2]]), rtol=1e-5, atol=1e-5)


def test_without_guidance_and_in_train_mode_it_is_the_network() -> None:
    network = unet()
    expected = network(X, T, GIVEN).prediction
    assert torch.equal(dl.PerturbedAttentionGuidance(network).eval()(X, T, GIVEN).prediction, expected)
    training = dl.PerturbedAttentionGuidance(network, guidance_scale=3.0).train()
    assert torch.equal(training(X, T, GIVEN).prediction, expected)


def test_it_stacks_with_classifier_free_guidance_in_both_orders() -> None:
    """w and s multiply: both passes of one are guided by the other."""
    network = unet()
    hidden = patched(network, ["middle.1"])
    y, p, u, q = (net(X, T, given).prediction for given in (GIVEN, {}) for net in (network, hidden))
    expected = (u_ := q + 2 * (u - q)) + 3 * ((p + 2 * (y - p)) - u_)
    cfg = lambda model: dl.CFGuidance(model, {"class": 0.1}, guidance_scale=3.0)  # noqa: E731
    pag = lambda model: dl.PerturbedAttentionGuidance(model, guidance_scale=2.0)  # noqa: E731
    for model in (cfg(pag(network)), pag(cfg(network))):
        torch.testing.assert_close(model.eval()(X, T, GIVEN).prediction, expected, rtol=1e-4, atol=1e-4)


def test_guidance_compiles_as_one_graph() -> None:
    """Perturbed attention, a weight of its own for the condition, and negatives together."""
    assert_compiles(catalogue.TinyNetwork(), GIVEN | {"negative_class": torch.tensor([2, 2, 0])})


@pytest.mark.slow
def test_guidance_of_the_network_compiles_as_one_graph() -> None:
    """The same with several conditions, of which the texts have different lengths, on the U-Net."""
    given = GIVEN | {"negative_class": torch.tensor([2, 2, 0])}
    given |= {"text": torch.randn(3, 4, 6), "negative_text": torch.randn(3, 2, 6)}
    assert_compiles(unet(tokens={"text": 6}, channel_mult=(1,), attention_levels=()), given)


def assert_compiles(network: nn.Module, given: dict[str, Tensor]) -> None:
    conditions = [name for name in given if not name.startswith("negative")]
    guided = dl.PerturbedAttentionGuidance(network, guidance_scale=2.0)
    model = dl.CFGuidance(guided, dict.fromkeys(conditions, 0.1), guidance_scale=dict.fromkeys(conditions, 2.0)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, T, given), model(X, T, given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "blocks", "message"),
    [
        (lambda: dl.IdealDenoiser(dl.VPredictor(dl.CosineSchedule()), X), ["middle"], "attention_blocks, but Ideal"),
        (
            lambda: unet(attention_levels=(), middle_attention=False),
            ["middle"],
            "attention_blocks, but ADMUNet names none",
        ),
        (unet, ["encoder.1"], r"blocks has 'encoder.1', but the attention blocks of the model are \['encoder.2.1'"),
    ],
)
def test_what_cannot_be_perturbed_is_named(model, blocks: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.PerturbedAttentionGuidance(model(), blocks=blocks)


def test_an_identity_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be torch.bool of shape \[3, 4\]"):
        unet()(X, T, {"identity_attention": torch.ones(3, 2, dtype=torch.bool)})
