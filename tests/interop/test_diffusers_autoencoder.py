"""Autoencoders in the folders of diffusers: its own classes compute the same, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_autoencoder import (
    SIZES,
    USAGE,
    from_diffusers_autoencoder_config,
    to_diffusers_autoencoder_config,
)
from tests.catalogue import randomise, tiny_kl, tiny_vq

diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")

DOWN, UP, ATTENTION_DOWN, ATTENTION_UP = (
    "DownEncoderBlock2D",
    "UpDecoderBlock2D",
    "AttnDownEncoderBlock2D",
    "AttnUpDecoderBlock2D",
)
SMALL = {
    "block_out_channels": [8, 12],
    "down_block_types": [DOWN, DOWN],
    "up_block_types": [UP, UP],
    "norm_num_groups": 4,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "kl": ("AutoencoderKL", SMALL),
    "kl_attention": (
        "AutoencoderKL",
        {
            **SMALL,
            "down_block_types": [DOWN, ATTENTION_DOWN],
            "up_block_types": [ATTENTION_UP, UP],
            "latent_channels": 5,
            "layers_per_block": 2,
            "scaling_factor": 0.3,
        },
    ),
    "kl_three_levels": (
        "AutoencoderKL",
        {
            "block_out_channels": [4, 8, 8],
            "down_block_types": [ATTENTION_DOWN, DOWN, ATTENTION_DOWN],
            "up_block_types": [ATTENTION_UP, UP, ATTENTION_UP],
            "norm_num_groups": 2,
            "in_channels": 1,
            "out_channels": 2,
            "mid_block_add_attention": False,
        },
    ),
    "kl_without_quant_conv": (
        "AutoencoderKL",
        {**SMALL, "use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06, "sample_size": [16, 8]},
    ),
    "kl_one_level": ("AutoencoderKL", {"block_out_channels": [8], "norm_num_groups": 8}),
    "vq": ("VQModel", SMALL),
    "vq_code_width": (
        "VQModel",
        {**SMALL, "latent_channels": 6, "vq_embed_dim": 2, "num_vq_embeddings": 11, "lookup_from_codebook": True},
    ),
    "vq_attention": (
        "VQModel",
        {
            **SMALL,
            "down_block_types": [ATTENTION_DOWN, DOWN],
            "up_block_types": [UP, ATTENTION_UP],
            "mid_block_add_attention": False,
            "layers_per_block": 2,
        },
    ),
}


def theirs(name: str) -> nn.Module:
    """Of diffusers, with random weights everywhere; codes as far apart as the features, which then use several."""
    class_name, config = CONFIGS[name]
    return randomise(getattr(diffusers, class_name)(**config)).eval()


def images(model: nn.Module) -> Tensor:
    return torch.randn(2, model.config.in_channels, 16, 8, dtype=torch.float64)


def assert_same_function(model: dl.AutoencoderKL | dl.VQModel, other: nn.Module) -> None:
    model, other = model.double().eval(), other.double().eval()
    x = images(other)
    exact = {"rtol": 0, "atol": 1e-10}
    with torch.no_grad():
        encoded = other.encode(x)
        if isinstance(model, dl.AutoencoderKL):
            posterior, expected = model.encode(x), encoded.latent_dist
            torch.testing.assert_close(posterior.mean, expected.mean, **exact)
            torch.testing.assert_close(posterior.log_variance, expected.logvar, **exact)
            torch.testing.assert_close(posterior.kl(), expected.kl(), rtol=1e-10, atol=0)
            z = torch.randn_like(posterior.mean)
            torch.testing.assert_close(posterior.nll(z), expected.nll(z), rtol=1e-10, atol=0)
            torch.testing.assert_close(model.decode(z), other.decode(z).sample, **exact)
            return
        h = model.encode(x)
        torch.testing.assert_close(h, encoded.latents, **exact)
        h = h + torch.randn_like(h)
        decoded = other.decode(h)
        torch.testing.assert_close(model.decode(h), decoded.sample, **exact)
        quantized = model.quantizer(h)
        _, loss, (_, _, indices) = other.quantize(h)
        assert quantized.indices.unique().numel() > 2
        assert torch.equal(quantized.indices.flatten(), indices)
        torch.testing.assert_close(quantized.loss, loss, rtol=1e-10, atol=0)
        if other.config.lookup_from_codebook:
            shape = (*quantized.indices.shape, model.latent_channels)
            looked_up = other.decode(quantized.indices, force_not_quantize=True, shape=shape).sample
            torch.testing.assert_close(model.decode_indices(quantized.indices), looked_up, **exact)


@pytest.mark.parametrize("name", CONFIGS)
def test_theirs_read_by_us(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    other.save_pretrained(tmp_path)
    model, usage = dl.load_diffusers_autoencoder(tmp_path)
    assert usage == {key: other.config[key] for key in USAGE[CONFIGS[name][0]]}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert_same_function(model, other)


@pytest.mark.parametrize("name", CONFIGS)
def test_ours_read_by_them_and_by_us_again(name: str, tmp_path: Path) -> None:
    class_name, config = CONFIGS[name]
    model, usage = from_diffusers_autoencoder_config({"_class_name": class_name, **config})
    randomise(model)
    dl.save_diffusers_autoencoder(model, tmp_path / "vae", usage)
    other = getattr(diffusers, class_name).from_pretrained(tmp_path / "vae")
    saved = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert set(saved) == {"_class_name", *SIZES[class_name], *USAGE[class_name]}
    expected = json.loads(getattr(diffusers, class_name)(**config).to_json_string())
    compared = set(saved) - {"_class_name", "vq_embed_dim"}  # the latter is written out where it is the default
    assert {key: saved[key] for key in compared} == {key: expected[key] for key in compared}

    again, usage_again = dl.load_diffusers_autoencoder(tmp_path)
    assert usage_again == usage
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert_same_function(model, other)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_there_and_back_are_the_same_bits(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    other.save_pretrained(tmp_path / "theirs")
    model, usage = dl.load_diffusers_autoencoder(tmp_path / "theirs")
    dl.save_diffusers_autoencoder(model, tmp_path / "ours", usage)
    back = type(other).from_pretrained(tmp_path / "ours").state_dict()
    assert back.keys() == other.state_dict().keys()
    assert all(torch.equal(value, back[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize(
    "name", ["kl_f4", "kl_f8", "kl_f16", "kl_f32", "vq_f4", "vq_f4_noattn", "vq_f8", "vq_f8_n256", "vq_f16"]
)
def test_the_released_models_have_the_keys_and_shapes_of_theirs(name: str) -> None:
    from diffusion_labs.interop.autoencoder_rules import diffusers_autoencoder_rules

    with torch.device("meta"):
        model = getattr(dl, name)()
        config = to_diffusers_autoencoder_config(model)
        sizes = {key: value for key, value in config.items() if key != "_class_name"}
        other = getattr(diffusers, config["_class_name"])(**sizes)
    ours = diffusers_autoencoder_rules().to_theirs(model.state_dict())
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_pickles_parts_and_variants(tmp_path: Path) -> None:
    other = theirs("kl")
    other.save_pretrained(tmp_path / "bin", safe_serialization=False)
    other.save_pretrained(tmp_path / "parts", max_shard_size="5KB")
    other.save_pretrained(tmp_path / "variant", variant="fp16")
    other.save_pretrained(tmp_path / "variant_parts", variant="fp16", max_shard_size="5KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    expected, _ = from_diffusers_autoencoder_config(other.config)
    for folder, variant in (("bin", None), ("parts", None), ("variant", "fp16"), ("variant_parts", "fp16")):
        model, _ = dl.load_diffusers_autoencoder(tmp_path / folder, variant=variant)
        assert model.state_dict().keys() == expected.state_dict().keys()
        assert_same_function(model, theirs("kl"))


def test_attention_weights_of_2022(tmp_path: Path) -> None:
    """The first Stable Diffusion repositories have query, key, value and proj_attn."""
    other = theirs("kl_attention")
    other.save_pretrained(tmp_path, safe_serialization=False)
    file = tmp_path / "diffusion_pytorch_model.bin"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in torch.load(file, weights_only=True).items():
        for new, name in names.items():
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value
    assert any("query" in key for key in old)
    torch.save(old, file)
    assert_same_function(dl.load_diffusers_autoencoder(tmp_path).model, other)


def test_half_precision_files(tmp_path: Path) -> None:
    other = theirs("vq").half()
    other.save_pretrained(tmp_path)
    model, _ = dl.load_diffusers_autoencoder(tmp_path)
    assert_same_function(model, other)
    dl.save_diffusers_autoencoder(model.half(), tmp_path / "ours")
    again = type(other).from_pretrained(tmp_path / "ours", torch_dtype=torch.float16).state_dict()
    assert all(torch.equal(again[key], value.half()) for key, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "_class_name='AutoencoderTiny' is not an autoencoder of diffusers"),
        ({"latent_chanels": 4}, "AutoencoderKL: latent_chanels=4 is not known"),
        ({"act_fn": "relu"}, "act_fn='relu' cannot be represented"),
        ({"down_block_types": [DOWN, "ResnetDownsampleBlock2D"]}, r"down_block_types=\[.*\] cannot be represented"),
        ({"up_block_types": [UP]}, r"up_block_types=\['UpDecoderBlock2D'\] must have 2 entries"),
        ({"up_block_types": [ATTENTION_UP, UP]}, "up_block_types=.* must have attention where down_block_types has"),
        ({"use_post_quant_conv": False}, "use_post_quant_conv=False must be as use_quant_conv"),
        ({"_class_name": "VQModel", "norm_type": "spatial"}, "VQModel: norm_type='spatial' cannot"),
        ({"_class_name": "VQModel", "shift_factor": 1.0}, "VQModel: shift_factor=1.0 is not known"),
    ],
)
def test_what_cannot_be_represented_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_diffusers_autoencoder_config({"_class_name": "AutoencoderKL", **SMALL, **changes})


@pytest.mark.parametrize("name", SIZES)
def test_the_keys_and_defaults_are_those_of_diffusers(name: str) -> None:
    defaults = {key: value for key, value in getattr(diffusers, name)().config.items() if key[0] != "_"}
    ours = {**SIZES[name], **USAGE[name]}
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()} == ours


def test_models_that_diffusers_has_not_are_refused(tmp_path: Path) -> None:
    for model in (tiny_kl(dims=1), tiny_kl(norm_eps=1e-5), tiny_kl(encoder_channels=7)):
        with pytest.raises(ValueError, match="diffusers has no such AutoencoderKL"):
            dl.save_diffusers_autoencoder(model, tmp_path / "folder")
    with pytest.raises(ValueError, match=r"usage has \['scaling'\], but VQModel has only"):
        dl.save_diffusers_autoencoder(tiny_vq(), tmp_path / "folder", {"scaling": 1.0})
    assert not (tmp_path / "folder").exists()


def test_wrong_weights_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json, itself or in one of \['vae'"):
        dl.load_diffusers_autoencoder(tmp_path)
    theirs("kl").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mid_block_add_attention": False}))
    with pytest.raises(ValueError, match=r"20 unexpected: \['\w+\.mid_block\.attentions\.0\.\w+"):
        dl.load_diffusers_autoencoder(tmp_path)
