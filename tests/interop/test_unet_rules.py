"""Weights of U-Nets in the names of CompVis and diffusers: diffusers' own conversion, round trips, files, errors."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.unet_rules import compvis_unet_rules, diffusers_unet_rules
from tests.catalogue import randomise

SMALL = {"model_channels": 8, "channel_mult": (1, 2, 2), "num_res_blocks": 2, "num_groups": 4, "num_heads": 2}
XL = {"vectors": {"pooled_text": 5}, "numbers": {"sizes": 6}, "frequency_dim": 8, "depth": (0, 2, 1)}
SIZES = {
    "stable_diffusion_1": {"attention_levels": (0, 1), "tokens": {"text": 6}},
    "stable_diffusion_xl": {"attention_levels": (1, 2), "tokens": {"text": 6}, **XL},
    "classes": {"attention_levels": (0, 1), "tokens": {"text": 6}, "classes": {"class": 4}},
}


def build(name: str, seed: int = 0) -> nn.Module:
    return randomise(dl.ldm_unet(**SMALL, **SIZES[name]), seed)


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, value in right.items():
        assert torch.equal(left[key], value), key


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_both_names_agree_with_the_conversion_of_diffusers(name: str, averaged: bool) -> None:
    """It converts what we write for CompVis into what we write for diffusers; and we read it, averages too."""
    single_file_utils = pytest.importorskip("diffusers.loaders.single_file_utils", reason="is the oracle here")
    conv_projections = name != "stable_diffusion_xl"
    network, average = build(name), build(name, seed=1)
    checkpoint = {}
    for key, value in dl.to_compvis_unet(network, conv_projections=conv_projections).items():
        checkpoint[f"model.diffusion_model.{key}"] = value
    for key, value in dl.to_compvis_unet(average, conv_projections=conv_projections).items():
        checkpoint[f"model_ema.{f'diffusion_model.{key}'.replace('.', '')}"] = value
    checkpoint |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    checkpoint |= {"first_stage_model.encoder.conv_in.bias": torch.zeros(1), "betas": torch.zeros(10)}

    config = {"layers_per_block": 2, "num_class_embeds": 5 if name == "classes" else None}
    if name == "stable_diffusion_xl":
        config["addition_embed_type"] = "text_time"
    theirs = single_file_utils.convert_ldm_unet_checkpoint(dict(checkpoint), config, extract_ema=averaged)
    expected = average if averaged else network
    assert_equal(dl.to_diffusers_unet(expected, conv_projections=conv_projections), theirs)

    loaded = build(name, seed=2)
    assert dl.load_compvis_unet(loaded, checkpoint, averaged=averaged) == ([], [])
    assert_equal(loaded.state_dict(), expected.state_dict())


# The networks without tokens, which ADM and LDM share, in the names of guided-diffusion


@pytest.mark.parametrize("residual_resampling", [False, True])
def test_guided_diffusion_and_unconditional_latent_diffusion(residual_resampling: bool) -> None:
    options = {**SMALL, "attention_levels": (1,), "residual_resampling": residual_resampling}
    network = randomise(dl.adm_unet(**options, classes={"class": 4}))
    theirs = dl.to_compvis_unet(network)
    names = {
        "time_embed.0.weight": "embedding.time.linear_in.weight",
        "label_emb.weight": "embedding.classes.class_.table.weight",
        "input_blocks.0.0.bias": "conv_in.bias",
        "input_blocks.1.0.in_layers.2.weight": "encoder.0.0.conv_in.weight",
        "input_blocks.4.1.qkv.weight": "encoder.3.1.qkv.weight",
        "middle_block.1.proj_out.weight": "middle.1.proj_out.weight",
        "output_blocks.0.0.skip_connection.weight": "decoder.0.0.skip.weight",
        "output_blocks.3.1.norm.weight": "decoder.3.1.norm.weight",
        "out.2.weight": "head.conv.weight",
    }
    if residual_resampling:
        names["input_blocks.3.0.emb_layers.1.weight"] = "encoder.2.0.norm_out.projection.weight"
        names["output_blocks.5.2.out_layers.3.weight"] = "decoder.5.2.conv_out.weight"
    else:
        names["input_blocks.3.0.op.weight"] = "encoder.2.0.resample.conv.weight"
        names["output_blocks.2.1.conv.weight"] = "decoder.2.1.resample.conv.weight"
        names["output_blocks.5.2.conv.weight"] = "decoder.5.2.resample.conv.weight"
    own = network.state_dict()
    for name, ours in names.items():
        assert theirs[name] is own[ours] or torch.equal(theirs[name], own[ours]), name

    other = randomise(dl.adm_unet(**options, classes={"class": 4}), seed=1)
    dl.load_compvis_unet(other, theirs)
    assert_equal(other.state_dict(), own)


def test_released_sizes_have_names_in_both_formats() -> None:
    for name in ("stable_diffusion_1", "lsun_churches"):
        with torch.device("meta"):
            network = dl.ldm_unet(**dl.LDM_UNETS[name])
        tables = [compvis_unet_rules()]
        if "tokens" in dl.LDM_UNETS[name]:
            tables.append(diffusers_unet_rules(network))
        for rules in tables:
            ours, unknown = rules.to_ours(rules.to_theirs(network.state_dict()))
            assert not unknown
            assert {key: value.shape for key, value in ours.items()} == {
                key: value.shape for key, value in network.state_dict().items()
            }


# Errors


def test_weights_of_another_network_are_named() -> None:
    network = build("stable_diffusion_1")
    theirs = dl.to_compvis_unet(network)
    theirs.pop("out.0.weight")
    theirs["input_blocks.1.0.gate.weight"] = torch.zeros(1)
    theirs["out.2.bias"] = torch.zeros(7)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"1 missing: .'out.0.weight'.; 1 unexpected: .'input_blocks.1.0.gate.weight'"):
        dl.load_compvis_unet(network, theirs)
    assert_equal(network.state_dict(), before)


def test_a_network_that_a_format_has_no_names_for() -> None:
    with pytest.raises(ValueError, match=r"has no name for .*context_kv"):
        dl.to_compvis_unet(dl.adm_unet(model_channels=32, channel_mult=(1,), tokens={"text": 4}))
