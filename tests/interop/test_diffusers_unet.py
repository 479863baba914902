"""U-Nets in the folders of diffusers: its own classes compute the same, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import randomise
from tests.interop.test_diffusers_unet_refused import (
    ADM,
    ATTENTION_DOWN,
    ATTENTION_UP,
    DOWN,
    RESIDUAL_DOWN,
    RESIDUAL_UP,
    TINY,
    UP,
)

diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
LATENT = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": [CROSS_DOWN, CROSS_DOWN, DOWN],
    "up_block_types": [UP, CROSS_UP, CROSS_UP],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
}
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 5 + 6 * 8,
    "use_linear_projection": True,
}
LARGE = ("stable_diffusion_xl", "latent_uneven", "inpainting_and_classes")  # seconds each
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": (  # of the paper's release: sines first, frequencies to the end, convolutions that look to the right
        "UNet2DModel",
        {
            **TINY,
            "down_block_types": [DOWN, ATTENTION_DOWN, DOWN],
            "up_block_types": [UP, ATTENTION_UP, UP],
            "attention_head_dim": None,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
        },
    ),
    "adm": ("UNet2DModel", {**ADM, "num_class_embeds": 5, "layers_per_block": 2}),
    "adm_learned_variance": ("UNet2DModel", {**ADM, "out_channels": 6, "dropout": 0.1}),
    "without_middle_attention": (
        "UNet2DModel",
        {
            **ADM,
            "resnet_time_scale_shift": "default",
            "add_attention": False,
            "down_block_types": [ATTENTION_DOWN, RESIDUAL_DOWN, DOWN],  # the last keeps its resolution
            "up_block_types": [RESIDUAL_UP, RESIDUAL_UP, ATTENTION_UP],
        },
    ),
    "uneven_widths": (
        "UNet2DModel",
        {
            **TINY,
            "block_out_channels": [24, 32, 56],
            "down_block_types": [ATTENTION_DOWN, ATTENTION_DOWN, DOWN],
            "up_block_types": [UP, ATTENTION_UP, ATTENTION_UP],
            "in_channels": 4,
            "out_channels": 1,
            "layers_per_block": 3,
            "attention_head_dim": 4,
            "time_embedding_dim": 20,
        },
    ),
    "one_level": (
        "UNet2DModel",
        {**TINY, "block_out_channels": [16], "down_block_types": [ATTENTION_DOWN], "up_block_types": [ATTENTION_UP]},
    ),
    "stable_diffusion_1": ("UNet2DConditionModel", {**LATENT, "layers_per_block": 2}),
    "stable_diffusion_2": (
        "UNet2DConditionModel",
        {**LATENT, "attention_head_dim": [2, 4, 4], "use_linear_projection": True, "norm_eps": 1e-6},
    ),
    "stable_diffusion_xl": (
        "UNet2DConditionModel",
        {
            **LATENT,
            **XL,
            "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN],
            "up_block_types": [CROSS_UP, CROSS_UP, UP],
            "block_out_channels": [8, 16, 24],
            "attention_head_dim": [1, 2, 3],
            "transformer_layers_per_block": [1, 2, 3],
        },
    ),
    "inpainting_and_classes": (
        "UNet2DConditionModel",
        {**LATENT, "in_channels": 9, "attention_head_dim": 4, "num_class_embeds": 5, "downsample_padding": 0},
    ),
    "class_vectors": (  # of stable unCLIP
        "UNet2DConditionModel",
        {**LATENT, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 7},
    ),
    "latent_uneven": (
        "UNet2DConditionModel",
        {
            **LATENT,
            "block_out_channels": [12, 20, 32],
            "down_block_types": [CROSS_DOWN, DOWN, CROSS_DOWN],
            "up_block_types": [CROSS_UP, UP, CROSS_UP],
            "resnet_time_scale_shift": "scale_shift",
            "transformer_layers_per_block": 2,
            "layers_per_block": 3,
        },
    ),
}


def theirs(name: str) -> nn.Module:
    """Of diffusers, with random weights everywhere."""
    class_name, config = CONFIGS[name]
    return randomise(getattr(diffusers, class_name)(**config)).eval()


def assert_same_function(model: nn.Module, other: nn.Module) -> None:
    model, other, config = model.double().eval(), other.double().eval(), other.config
    x, t = torch.randn(2, config.in_channels, 16, 8).double(), torch.tensor([3, 921])
    ours: dict[str, Tensor] = {}
    given: dict[str, Any] = {}
    if config.num_class_embeds is not None:
        ours["class"] = given["class_labels"] = torch.tensor([3, 4])
    if "cross_attention_dim" in config:
        ours["text"] = given["encoder_hidden_states"] = torch.randn(2, 5, 6).double()
    if config.get("class_embed_type"):
        ours["class_vector"] = given["class_labels"] = torch.randn(2, 7).double()
    if config.get("addition_embed_type"):
        ours |= {"pooled_text": torch.randn(2, 5).double(), "sizes": torch.randint(512, (2, 6))}
        given["added_cond_kwargs"] = {"text_embeds": ours["pooled_text"], "time_ids": ours["sizes"]}
    with torch.no_grad():
        expected = other(x, t, **given).sample
        output = model(x, t, ours)
    actual = output.prediction
    if output.variance_value is not None:
        actual = torch.cat([actual, 2 * output.variance_value - 1], 1)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5


def assert_same_bits(left: nn.Module, right: nn.Module) -> None:
    left_state, right_state = left.state_dict(), right.state_dict()
    assert left_state.keys() == right_state.keys()
    assert all(torch.equal(value, right_state[key]) for key, value in left_state.items())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in CONFIGS],
)
def test_read_and_written_back(name: str, tmp_path: Path) -> None:
    """Theirs is read by us; what we write is read by them, strictly, and by us again."""
    other = theirs(name)
    other.save_pretrained(tmp_path / "theirs")
    learned = name == "adm_learned_variance"
    model = dl.load_diffusers_unet(tmp_path / "theirs", learned_variance=learned)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())

    linear = bool(other.config.get("use_linear_projection"))
    dl.save_diffusers_unet(model, tmp_path / "unet", sample_size=8, conv_projections=not linear)
    back, loading = type(other).from_pretrained(tmp_path / "unet", output_loading_info=True)
    assert not any(loading.values())
    assert back.config.sample_size == 8
    again = dl.load_diffusers_unet(tmp_path, learned_variance=learned)
    assert_same_bits(again, model)
    if other.config.get("flip_sin_to_cos"):
        assert_same_bits(back, other)
    saved = json.loads((tmp_path / "unet" / "config.json").read_text())
    rewritten = {"sample_size", "flip_sin_to_cos", "down_block_types", "up_block_types"}
    if "cross_attention_dim" not in saved:
        rewritten |= {"attn_norm_num_groups", "attention_head_dim"}  # written out where it is the default
    for key in saved.keys() - rewritten - {"_class_name"}:
        assert saved[key] == other.config[key], key

    assert_same_function(model, other)
    assert_same_function(again, back)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("heads", [{"head_channels": 4}, {"num_heads": 1}])
@pytest.mark.parametrize("residual", [False, True])
def test_ours_read_by_them(order: str, heads: dict[str, int], residual: bool, tmp_path: Path) -> None:
    """The order of the heads is a permutation of rows, so networks of both orders can be written."""
    model = dl.adm_unet(
        model_channels=8,
        channel_mult=(1, 2, 3),
        attention_levels=(0, 2),
        num_res_blocks=1,
        num_groups=4,
        attention_order=order,
        residual_resampling=residual,
        scale_shift=not residual,
        learned_variance=residual,
        classes={"digit": 4},
        **heads,
    )
    randomise(model)
    dl.save_diffusers_unet(model, tmp_path)
    other = diffusers.UNet2DModel.from_pretrained(tmp_path).double().eval()
    x, t, digits = torch.randn(2, 3, 8, 8).double(), torch.tensor([0, 500]), torch.tensor([1, 4])
    with torch.no_grad():
        output = model.double().eval()(x, t, {"digit": digits})
        expected = other(x, t, class_labels=digits).sample
    assert (output.prediction - expected[:, :3]).abs().max() < 1e-5
    if residual:
        assert (2 * output.variance_value - 1 - expected[:, 3:]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["ddpm", pytest.param("stable_diffusion_xl", marks=pytest.mark.slow)])
def test_pickles_parts_and_variants(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    other.save_pretrained(tmp_path / "bin", safe_serialization=False)
    other.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    other.save_pretrained(tmp_path / "bin_parts", max_shard_size="20KB", safe_serialization=False)
    other.half().save_pretrained(tmp_path / "variant", variant="fp16")
    other.save_pretrained(tmp_path / "variant_parts", variant="fp16", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    expected = dl.load_diffusers_unet(tmp_path / "bin")
    assert_same_function(expected, theirs(name))
    for folder in ("parts", "bin_parts"):
        assert_same_bits(dl.load_diffusers_unet(tmp_path / folder), dl.load_diffusers_unet(tmp_path / "bin"))
    for folder in ("variant", "variant_parts"):
        assert_same_function(dl.load_diffusers_unet(tmp_path / folder, variant="fp16"), other)


def test_attention_weights_of_2022(tmp_path: Path) -> None:
    """The repositories of DDPM have query, key, value and proj_attn."""
    other = theirs("ddpm")
    other.save_pretrained(tmp_path, safe_serialization=False)
    file = tmp_path / "diffusion_pytorch_model.bin"
    old = {}
    for key, value in torch.load(file, weights_only=True).items():
        for new, name in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value
    assert any("proj_attn" in key for key in old)
    torch.save(old, file)
    assert_same_function(dl.load_diffusers_unet(tmp_path), other)


def test_half_precision(tmp_path: Path) -> None:
    model = dl.from_diffusers_unet_config({"_class_name": "UNet2DModel", **ADM})
    dl.save_diffusers_unet(randomise(model).half(), tmp_path)
    other = diffusers.UNet2DModel.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert all(value.dtype == torch.float16 for value in other.state_dict().values())
    assert_same_function(model, other)


def test_the_released_adm_like_sizes_are_written_with_the_shapes_of_theirs() -> None:
    from diffusion_labs.interop.diffusers_unet_written import to_diffusers_unet_config

    for name in ("celebahq", "bsr_sr", "stable_diffusion_1", "stable_diffusion_xl"):
        with torch.device("meta"):
            model = dl.ldm_unet(**dl.LDM_UNETS[name])
            config = to_diffusers_unet_config(model, dl.from_diffusers_unet_config)
            sizes = {key: value for key, value in config.items() if key != "_class_name"}
            other = getattr(diffusers, config["_class_name"])(**sizes)
        ours = dl.to_diffusers_unet(model)
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_missing_files_and_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config.json, itself or in 'unet'"):
        dl.load_diffusers_unet(tmp_path)
    other = theirs("adm")
    other.save_pretrained(tmp_path)
    del other.mid_block.attentions[0].to_k
    other.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"2 missing: \['mid_block.attentions.0.to_q,to_k,to_v.*4 unexpected: \['mid_block.*to_q"
    ):
        dl.load_diffusers_unet(tmp_path)
