"""Every wrong option and input of the ADM U-Net gives an error that names it, its value and the rule."""

import re

import pytest
import torch

from diffusion_labs.conditioning import ConditionalModule
from diffusion_labs.models import ADMUNet, adm_unet, levels_of_factors

SMALL = {"model_channels": 16, "channel_mult": (1, 2), "num_res_blocks": 1, "num_groups": 8, "in_channels": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_mult": ()}, "channel_mult (()) must hold at least one number"),
        ({"channel_mult": (1, 0)}, "channel_mult ((1, 0)) must hold"),
        ({"num_res_blocks": 0}, "num_res_blocks (0) must be at least 1"),
        ({"num_resamples": 2}, "num_resamples (2) must be between 0 and 1"),
        ({"num_resamples": -1}, "num_resamples (-1) must be between 0 and 1"),
        ({"attention_levels": (1, 2)}, "attention_levels ((1, 2)) must be between 0 and 1"),
        ({"attention_levels": (-1,)}, "attention_levels ((-1,)) must be between 0 and 1"),
        ({"attention_order": "old"}, "attention_order ('old') must be one of ['legacy', 'new']"),
        ({"num_heads": 3}, "num_heads (3) must divide channels (32)"),
        ({"num_heads": 0}, "num_heads (0) must divide channels (32)"),
        ({"num_heads_upsample": 5, "attention_levels": (1,)}, "num_heads (5) must divide channels (32)"),
        ({"head_channels": 24}, "head_channels (24) must divide the channels (32)"),
        ({"num_groups": 32}, "num_groups (32) must divide num_channels (16)"),
        ({"dims": 4}, "dims (4) must be 1, 2 or 3"),
        ({"tokens": {"text": 4}, "middle_attention": False}, "tokens ({'text': 4}) enter by attention"),
        ({"classes": {"a": 4}, "vectors": {"a": 4}}, "the condition name 'a' is used twice"),
        ({"vectors": {"a_mask": 4}, "tokens": {"a": 4}}, "the condition name 'a_mask' is used twice"),
        ({"vectors": {"a": 4}, "vector_tokens": {"b": 4}}, "vector_tokens ({'b': 4}) are made of vectors ({'a': 4})"),
        ({"classes": {"a.b": 4}}, "the condition name 'a.b' must be a Python identifier"),
        ({"vectors": {"type": 4}}, "the condition name 'type' must be a Python identifier and no attribute"),
    ],
)
def test_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        adm_unet(**(SMALL | options))


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="channels_mult"):
        adm_unet(channels_mult=(1, 2))


@pytest.mark.parametrize("factor", [0, 3, -2])
def test_factors_that_are_no_power_of_two(factor: int) -> None:
    with pytest.raises(ValueError, match=rf"factors has {factor}, but must hold powers of two"):
        levels_of_factors([2, factor])


def test_levels_of_factors() -> None:
    assert levels_of_factors([1, 2, 4, 32]) == (0, 1, 2, 5)
    assert levels_of_factors(64 // side for side in (32, 16, 8)) == (1, 2, 3)


X, T = torch.zeros(3, 2, 4, 6), torch.zeros(3)


@pytest.mark.parametrize(
    ("x", "timestep", "message"),
    [
        (torch.zeros(3, 4, 4, 4), T, "x has 4 channels (shape [3, 4, 4, 4]), but must have 2"),
        (torch.zeros(3, 2, 4), T, "x has 3 dimensions (shape [3, 2, 4]), but must have 4"),
        (torch.zeros(3, 2, 4, 4, 4), T, "x has 5 dimensions (shape [3, 2, 4, 4, 4]), but must have 4"),
        (torch.zeros(3, 2, 4, 5), T, "x has size [4, 5], but every side must be a multiple of 2"),
        (X.byte(), T, "x has dtype torch.uint8, but must be floating point"),
        (X, torch.tensor(1), "timestep has shape [], but must be [3]"),
        (X, torch.zeros(1), "timestep has shape [1], but must be [3]"),
        (X, torch.zeros(3, 1), "timestep has shape [3, 1], but must be [3]"),
    ],
)
def test_x_and_timestep(x: torch.Tensor, timestep: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        adm_unet(**SMALL)(x, timestep)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("class", torch.zeros(3), "'class' has dtype torch.float32, but class indices must be integers"),
        ("class", torch.zeros(3, dtype=torch.bool), "'class' has dtype torch.bool"),
        ("class", torch.zeros(3, 1, dtype=torch.long), "'class' has shape [3, 1], but must be [3]"),
        ("clip", torch.zeros(3, 5), "'clip' has shape [3, 5], but must be [3, 6]"),
        ("clip", torch.zeros(3, 1, 6), "'clip' has shape [3, 1, 6], but must be [3, 6]"),
        ("text", torch.zeros(3, 4, 6), "'text' has shape [3, 4, 6], but must be [3, n, 5]"),
        ("text", torch.zeros(3, 5), "'text' has shape [3, 5], but must be [3, n, 5]"),
        ("text_mask", torch.ones(3, 4), "'text_mask' is torch.float32 of shape [3, 4]"),
        ("text_mask", torch.ones(3, 5, dtype=torch.bool), "'text_mask' is torch.bool of shape [3, 5]"),
        ("label", torch.zeros(3), "conditional_inputs has ['label'], which nothing in this model consumes"),
        ("clip", torch.zeros(2, 6), "conditional_inputs['clip'] has shape [2, 6], but x has a batch of 3"),
    ],
)
def test_conditions(name: str, value: torch.Tensor, message: str) -> None:
    network = adm_unet(**SMALL, classes={"class": 4}, vectors={"clip": 6}, tokens={"text": 5})
    good = {"text": torch.zeros(3, 4, 5)}
    with pytest.raises(ValueError, match=re.escape(message)):
        network(X, T, good | {name: value})


def test_stages_that_do_not_fit() -> None:
    network = adm_unet(**SMALL)
    assert isinstance(network, ConditionalModule)
    parts = (network.embedding, network.conv_in, list(network.encoder), network.middle)
    with pytest.raises(ValueError, match=r"decoder has 3 stages, but must have one more than encoder \(3\)"):
        ADMUNet(*parts, list(network.decoder)[:-1], network.head)
