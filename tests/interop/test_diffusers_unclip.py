"""The decoder of diffusers' unCLIP: its own classes compute the same, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import diffusion_labs as dl
from tests.catalogue import randomise

diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")

DOWN, SIMPLE_DOWN = "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"
UP, SIMPLE_UP = "ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"
KARLO = {
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": [DOWN, SIMPLE_DOWN],
    "up_block_types": [SIMPLE_UP, UP],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": 10,
}
TEXT = {"clip_embeddings_dim": 16, "time_embed_dim": 32, "cross_attention_dim": 10}
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "karlo": (KARLO, TEXT),
    "other": (
        {
            **KARLO,
            "in_channels": 2,
            "out_channels": 2,
            "block_out_channels": [12, 20, 32],
            "layers_per_block": 2,
            "down_block_types": [SIMPLE_DOWN, DOWN, SIMPLE_DOWN],
            "up_block_types": [SIMPLE_UP, UP, SIMPLE_UP],
            "resnet_time_scale_shift": "default",
            "norm_eps": 1e-6,
            "dropout": 0.1,
        },
        {"clip_embeddings_dim": 5, "time_embed_dim": 48, "cross_attention_dim": 10, "clip_extra_context_tokens": 3},
    ),
}


def text_projection(**config: Any) -> nn.Module:
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    return randomise(UnCLIPTextProjModel(**config), 1).eval()


def theirs(name: str) -> tuple[nn.Module, nn.Module]:
    unet, text = CONFIGS[name]
    return randomise(diffusers.UNet2DConditionModel(**unet)).eval(), text_projection(**text)


def save(decoder: nn.Module, text_proj: nn.Module, folder: Path) -> None:
    decoder.save_pretrained(folder / "decoder")
    text_proj.save_pretrained(folder / "text_proj")


def assert_same_function(model: dl.CFGuidance, decoder: nn.Module, text_proj: nn.Module) -> None:
    """As the pipeline calls its parts, with padded text."""
    model, decoder, text_proj = model.double().eval(), decoder.double(), text_proj.double()
    dim = text_proj.config.clip_embeddings_dim
    x, t = torch.randn(2, decoder.config.in_channels, 8, 4).double(), torch.tensor([3, 921])
    given = {"image_embedding": torch.randn(2, dim).double(), "text_embedding": torch.randn(2, dim).double()}
    given |= {"text": torch.randn(2, 5, dim).double(), "text_mask": torch.arange(5) < torch.tensor([[3], [5]])}
    with torch.no_grad():
        states, embedding = text_proj(
            image_embeddings=given["image_embedding"],
            prompt_embeds=given["text_embedding"],
            text_encoder_hidden_states=given["text"],
            do_classifier_free_guidance=False,
        )
        mask = F.pad(given["text_mask"], (text_proj.config.get("clip_extra_context_tokens"), 0), value=True)
        expected = decoder(x, t, encoder_hidden_states=states, class_labels=embedding, attention_mask=mask).sample
        output = model.model(x, t, given)
    actual = output.prediction
    if output.variance_value is not None:
        actual = torch.cat([actual, 2 * output.variance_value - 1], 1)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_read_and_written_back(name: str, tmp_path: Path) -> None:
    decoder, text_proj = theirs(name)
    save(decoder, text_proj, tmp_path / "theirs")
    model = dl.load_diffusers_unclip_decoder(tmp_path / "theirs")
    assert torch.equal(model.null_image_embedding, text_proj.learned_classifier_free_guidance_embeddings)

    dl.save_diffusers_unclip_decoder(model, tmp_path / "ours", sample_size=8)
    again = dl.load_diffusers_unclip_decoder(tmp_path / "ours")
    back = []
    for folder, other in (("decoder", decoder), ("text_proj", text_proj)):
        read, loading = type(other).from_pretrained(tmp_path / "ours" / folder, output_loading_info=True)
        assert not any(loading.values())
        for key, value in other.state_dict().items():
            assert torch.equal(read.state_dict()[key], value), key
        saved = json.loads((tmp_path / "ours" / folder / "config.json").read_text())
        for key in saved.keys() - {"sample_size", "_class_name"}:
            assert saved[key] == other.config[key], key
        back.append(read)
    assert back[0].config.sample_size == 8
    assert_same_function(model, decoder, text_proj)
    assert_same_function(again, *back)


def test_ours_of_the_other_order_of_heads_read_by_them(tmp_path: Path) -> None:
    network = dl.adm_unet(
        model_channels=8,
        channel_mult=(1, 2),
        attention_levels=(0,),
        num_res_blocks=1,
        num_groups=4,
        attention_order="legacy",
        head_channels=4,
        learned_variance=True,
        vectors={"image_embedding": 6, "text_embedding": 6},
        vector_tokens={"image_embedding": 4},
        tokens={"text": 6},
        token_norm=True,
        context_dim=9,
    )
    model = dl.dalle2_decoder(randomise(network)).model
    dl.save_diffusers_unclip_decoder(model, tmp_path)
    decoder = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "decoder").eval()
    text_proj = type(text_projection(**TEXT)).from_pretrained(tmp_path / "text_proj").eval()
    assert not text_proj.learned_classifier_free_guidance_embeddings.any()
    assert_same_function(model, decoder, text_proj)


REFUSED = [
    ({"class_embed_type": None}, {}, r"class_embed_type=None cannot be represented; it must be one of \['identity'\]"),
    ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, {}, "mid_block_type"),
    ({"down_block_types": ["DownBlock2D", SIMPLE_DOWN]}, {}, "down_block_types"),
    ({"up_block_types": [UP, SIMPLE_UP]}, {}, "must have attention where down_block_types has"),
    ({"only_cross_attention": True}, {}, "only_cross_attention"),
    ({"cross_attention_norm": "layer_norm"}, {}, "cross_attention_norm"),
    ({"new_key": 1}, {}, "new_key=1 is not known"),
    ({}, {"cross_attention_dim": 12}, r"cross_attention_dim=12 must be that of the decoder \(10\)"),
    ({}, {"time_embed_dim": 64}, r"time_embed_dim=64 must be four times the first width of the decoder \(32\)"),
    ({}, {"_class_name": "Other"}, "_class_name='Other' must be 'UnCLIPTextProjModel'"),
]


@pytest.mark.parametrize(("unet", "text", "message"), REFUSED)
def test_what_cannot_be_represented_is_named(unet: dict[str, Any], text: dict[str, Any], message: str) -> None:
    decoder = {"_class_name": "UNet2DConditionModel", **KARLO, **unet}
    with pytest.raises(ValueError, match=message):
        dl.from_diffusers_unclip_config(decoder, {"_class_name": "UnCLIPTextProjModel", **TEXT, **text})


def test_networks_that_diffusers_has_not_are_named(tmp_path: Path) -> None:
    sizes = {"model_channels": 8, "channel_mult": (1, 2), "num_groups": 4, "attention_levels": (1,), "num_heads": 2}
    conditions = {"vectors": {"image_embedding": 6, "text_embedding": 6}, "tokens": {"text": 6}}
    tokens = {"vector_tokens": {"image_embedding": 4}}
    plain = dl.dalle2_decoder(dl.adm_unet(**sizes, **conditions)).model
    with pytest.raises(ValueError, match="'image_embedding', also as tokens"):
        dl.save_diffusers_unclip_decoder(plain, tmp_path)
    without_norm = dl.dalle2_decoder(dl.adm_unet(**sizes, **conditions, **tokens)).model
    with pytest.raises(ValueError, match="token_norm=True"):
        dl.save_diffusers_unclip_decoder(without_norm, tmp_path)
