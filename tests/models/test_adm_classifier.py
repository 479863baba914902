"""The classifier of ADM: released sizes, its pooling written a second time, and what it refuses."""

import re

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.models.adm_unet.classifier import AttentionPool
from tests.catalogue import CLASSIFIERS, SCHEDULES, TinyNetwork, randomise

# All parameters, in millions
RELEASED = {"imagenet_64": 65.44, "imagenet_128": 42.57, "imagenet_256": 54.10, "imagenet_512": 54.45}


def test_every_released_size_has_its_count() -> None:
    assert RELEASED.keys() == dl.ADM_CLASSIFIERS.keys()


@pytest.mark.parametrize("name", RELEASED)
def test_as_many_parameters_as_the_released_network(name: str) -> None:
    with torch.device("meta"):
        parameters = list(dl.adm_classifier(**dl.ADM_CLASSIFIERS[name]).parameters())
    assert round(sum(parameter.numel() for parameter in parameters) / 1e6, 2) == RELEASED[name]


@pytest.mark.parametrize("heads", [1, 3])
def test_pooling_is_attention_of_the_mean_to_itself_and_the_positions(heads: int) -> None:
    channels, outputs, d = 12, 5, 12 // heads
    pool = randomise(AttentionPool(channels, heads, num_positions=6, num_outputs=outputs)).double()
    h = torch.randn(2, channels, 2, 3).double()

    tokens = h.reshape(2, channels, 6)
    tokens = torch.cat([tokens.sum(2, keepdim=True) / 6, tokens], 2) + pool.positions
    weights, biases = pool.qkv.weight[:, :, 0], pool.qkv.bias
    pooled = torch.empty(2, channels, dtype=torch.float64)
    for head in range(heads):
        rows = [slice(part * channels + head * d, part * channels + (head + 1) * d) for part in range(3)]
        q, k, v = (torch.einsum("oc,bcn->bno", weights[r], tokens) + biases[r] for r in rows)
        scores = torch.einsum("bd,bnd->bn", q[:, 0], k) / d**0.5
        shares = scores.exp() / scores.exp().sum(1, keepdim=True)
        pooled[:, head * d : (head + 1) * d] = torch.einsum("bn,bnd->bd", shares, v)
    expected = pooled @ pool.out.weight[:, :, 0].mT + pool.out.bias
    torch.testing.assert_close(pool(h), expected)


@pytest.mark.parametrize("options", [{}, {"scale_shift": False, "residual_resampling": False}])
def test_its_features_are_those_of_the_encoder_of_the_unet(options: dict) -> None:
    """With the weights of one in the other, up to the end of the middle."""
    sizes = {"model_channels": 8, "channel_mult": (1, 2, 2), "num_res_blocks": 2, "num_groups": 4, "head_channels": 4}
    sizes |= {"attention_levels": (1, 2), **options}
    classifier = randomise(dl.adm_classifier(size=8, num_classes=3, **sizes))
    unet = dl.adm_unet(**sizes)
    unet.embedding.time.load_state_dict(classifier.time.state_dict())
    for name in ("conv_in", "encoder", "middle"):
        getattr(unet, name).load_state_dict(getattr(classifier, name).state_dict())
    features = []
    for network in (classifier, unet):
        network.middle.register_forward_hook(lambda module, args, output: features.append(output))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    classifier(x, t)
    unet(x, t)
    assert torch.equal(*features)


def test_it_guides() -> None:
    """Its gradient by automatic differentiation is what the adapter adds to the score."""
    predictor = dl.NoisePredictor(SCHEDULES["linear"]())
    network, classifier = TinyNetwork(), CLASSIFIERS["adm_classifier"]()
    guided = dl.ClassifierGuidance(network, classifier, predictor, guidance_scale=3.0).eval()
    x, t, classes = torch.randn(3, 1, 8, 8), torch.tensor([5, 400, 900]), torch.tensor([0, 2, 1])
    leaf = x.clone().requires_grad_()
    classifier(leaf, t).log_softmax(1)[torch.arange(3), classes].sum().backward()
    expected = (
        network(x, t, {"class": classes}).prediction
        - 3 * predictor.schedule.sigma(t).float()[:, None, None, None] * leaf.grad
    )
    torch.testing.assert_close(guided(x, t, {"class": classes}).prediction, expected, rtol=1e-5, atol=1e-6)
    assert leaf.grad.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 6}, "size (6) must be a multiple of 4, as channel_mult has 3 levels"),
        ({"size": 8, "head_channels": 3}, "head_channels (3) must divide the channels (16)"),
        ({"size": 8, "attention_levels": (3,)}, "attention_levels ((3,)) must be between 0 and 2"),
        ({"size": 8, "num_res_blocks": 0}, "num_res_blocks (0) must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit(options: dict, message: str) -> None:
    given = {
        "model_channels": 8,
        "channel_mult": (1, 2, 2),
        "num_groups": 4,
        "head_channels": 4,
        "attention_levels": (),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.adm_classifier(**{**given, **options})


def test_another_size_of_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x has shape \[2, 1, 16, 16\], but must be \[2, 1, 8, 8\]"):
        CLASSIFIERS["adm_classifier"]()(torch.randn(2, 1, 16, 16), torch.tensor([0, 1]))
