"""Weights of DiT in the layouts of its own code and of diffusers, whose class computes the same."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_dit import NEUTRAL, SIZES, UNREAD
from tests.catalogue import randomise

diffusers = pytest.importorskip("diffusers", reason="DiTTransformer2DModel of diffusers is the oracle here")

CONFIGS: dict[str, dict[str, Any]] = {
    "released": {"out_channels": 8, "num_embeds_ada_norm": 7},
    "without_variance": {"in_channels": 3, "num_layers": 3, "num_embeds_ada_norm": 4, "norm_eps": 1e-3},
    "large_patches": {"in_channels": 1, "out_channels": 2, "patch_size": 4, "num_attention_heads": 1},
}
TINY = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8}


def theirs(name: str, *, copied: bool = True) -> nn.Module:
    """With random weights everywhere, and the embedding of the first block in all of them."""
    other = randomise(diffusers.DiTTransformer2DModel(**{**TINY, **CONFIGS[name]})).eval()
    for block in other.transformer_blocks:
        if copied:
            block.norm1.emb.load_state_dict(other.transformer_blocks[0].norm1.emb.state_dict())
    return other


def shift_frequencies(other: nn.Module, shift: int) -> nn.Module:
    for block in other.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = shift
    return other


def assert_same_function(model: dl.DiT, other: nn.Module) -> None:
    model, other = model.float().eval(), other.float().eval()  # there the sinusoids are always of float32
    x, t = torch.randn(3, other.config.in_channels, 8, 8), torch.tensor([0, 321, 999])
    classes = torch.tensor([0, 2, other.config.num_embeds_ada_norm])
    with torch.no_grad():
        expected = other(x, t, class_labels=classes).sample
        output = model(x, t, {"class": classes})
    actual = output.prediction
    if output.variance_value is not None:
        actual = torch.cat([actual, 2 * output.variance_value - 1], 1)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_folders_of_diffusers_are_read_and_written_back(name: str, copied: bool, tmp_path: Path) -> None:
    """Also where training has made the copies of the embedding differ."""
    other = theirs(name, copied=copied)
    other.save_pretrained(tmp_path / "theirs")
    model = dl.load_diffusers_dit(tmp_path / "theirs")
    assert len(model.embeddings) == (1 if copied else len(model.blocks))

    dl.save_diffusers_dit(model, tmp_path / "transformer")
    back, loading = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(loading.values())
    assert back.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in other.state_dict().items())
    saved = json.loads((tmp_path / "transformer" / "config.json").read_text())
    assert saved.keys() == {"_class_name", *SIZES, *NEUTRAL}
    for key in saved.keys() - {"_class_name", "out_channels"}:
        assert saved[key] == other.config[key], key
    again = dl.load_diffusers_dit(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert_same_function(model, other)


@pytest.mark.parametrize("freq_shift", [0, 1])
def test_the_spacing_of_frequencies_is_an_option(freq_shift: int, tmp_path: Path) -> None:
    other = theirs("released")
    other.save_pretrained(tmp_path)
    model = dl.load_diffusers_dit(tmp_path, freq_shift=freq_shift)
    assert_same_function(model, shift_frequencies(other, freq_shift))
    with pytest.raises(AssertionError):
        assert_same_function(model, shift_frequencies(other, 1 - freq_shift))
    with pytest.raises(ValueError, match=rf"computes with {{'time_shift': {1 - freq_shift}}}, but the network was"):
        dl.save_diffusers_dit(model, tmp_path / "again", freq_shift=1 - freq_shift)
    dl.save_diffusers_dit(model, tmp_path / "again", freq_shift=freq_shift)


def test_pickles_parts_and_variants(tmp_path: Path) -> None:
    other = theirs("without_variance")
    other.save_pretrained(tmp_path / "bin", safe_serialization=False)
    other.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    other.save_pretrained(tmp_path / "variant", variant="ema")
    for folder, variant in (("bin", None), ("parts", None), ("variant", "ema")):
        assert_same_function(dl.load_diffusers_dit(tmp_path / folder, variant=variant), theirs("without_variance"))


# The layout of the code that was released with the paper, written here by hand


def original(other: nn.Module) -> dict[str, Tensor]:
    """The weights of diffusers' class by the names of that code."""
    state, result = other.state_dict(), {"pos_embed": other.pos_embed.pos_embed}

    def take(name: str, *sources: str) -> None:
        for kind in ("weight", "bias"):
            result[f"{name}.{kind}"] = torch.cat([state[f"{source}.{kind}"] for source in sources])

    take("x_embedder.proj", "pos_embed.proj")
    embedding = "transformer_blocks.0.norm1.emb"
    take("t_embedder.mlp.0", f"{embedding}.timestep_embedder.linear_1")
    take("t_embedder.mlp.2", f"{embedding}.timestep_embedder.linear_2")
    result["y_embedder.embedding_table.weight"] = state[f"{embedding}.class_embedder.embedding_table.weight"]
    for i in range(len(other.transformer_blocks)):
        ours, block = f"blocks.{i}", f"transformer_blocks.{i}"
        take(f"{ours}.attn.qkv", *[f"{block}.attn1.to_{letter}" for letter in "qkv"])
        take(f"{ours}.attn.proj", f"{block}.attn1.to_out.0")
        take(f"{ours}.mlp.fc1", f"{block}.ff.net.0.proj")
        take(f"{ours}.mlp.fc2", f"{block}.ff.net.2")
        take(f"{ours}.adaLN_modulation.1", f"{block}.norm1.linear")
    take("final_layer.adaLN_modulation.1", "proj_out_1")
    take("final_layer.linear", "proj_out_2")
    return result


RELEASED = {"size": 8, "dim": 16, "depth": 2, "num_heads": 2, "learned_variance": True, "classes": {"class": 7}}


def oracle() -> nn.Module:
    """The class of diffusers as the released code computes: frequencies without a shift, and eps 1e-6."""
    config = {**TINY, **CONFIGS["released"], "norm_eps": 1e-6}
    other = diffusers.DiTTransformer2DModel(**config)
    other.load_state_dict(theirs("released").state_dict())
    return shift_frequencies(other, 0)


@pytest.mark.parametrize("layout", ["released", "ema", "model"])
def test_checkpoints_of_the_released_code(layout: str, tmp_path: Path) -> None:
    other = oracle()
    tensors = original(other)
    checkpoint: dict[str, Any] = tensors
    if layout != "released":
        wrong = {key: torch.zeros_like(value) for key, value in tensors.items()}
        parts = {"ema": tensors, "model": wrong} if layout == "ema" else {"model": tensors, "ema": wrong}
        checkpoint = {**parts, "opt": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4}]}}
        checkpoint["args"] = argparse.Namespace(model="DiT-XL/2", image_size=256)
    torch.save(checkpoint, tmp_path / "0050000.pt")
    for weights in (checkpoint, tmp_path / "0050000.pt"):
        model = randomise(dl.dit(**RELEASED), seed=1)
        assert dl.load_dit(model, weights, averaged=layout != "model") == ([], [])
        assert_same_function(model, other)
    back = dl.to_dit(model)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], value) for key, value in tensors.items())


def test_positions_of_a_checkpoint_are_loaded() -> None:
    tensors = original(oracle())
    model = dl.dit(**RELEASED)
    torch.testing.assert_close(model.positions, tensors["pos_embed"][0])
    dl.load_dit(model, {**tensors, "pos_embed": tensors["pos_embed"] + 1})
    torch.testing.assert_close(model.positions, tensors["pos_embed"][0] + 1)


def test_the_released_sizes_have_the_keys_of_theirs() -> None:
    with torch.device("meta"):
        for name in ("DiT-XL/2", "DiT-S/8"):
            keys = dl.to_dit(dl.dit(**dl.DITS[name]))
            assert keys["pos_embed"].dim() == 3
            assert len(keys) == 8 + 10 * dl.DITS[name]["depth"] + 4


# What does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "PixArtTransformer2DModel"}, "_class_name='PixArtTransformer2DModel' is not known here"),
        ({"activation_fn": "gelu"}, "activation_fn='gelu' cannot be represented; it must be one of"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine=True cannot be represented"),
        ({"attention_bias": False}, "attention_bias=False cannot be represented"),
        ({"dropout": 0.1}, "dropout=0.1 cannot be represented"),
        ({"num_embeds_ada_norm": None}, "num_embeds_ada_norm=None cannot be represented; it must be one number"),
        ({"heads": 3}, "heads=3 is not known; remove it"),
    ],
)
def test_configurations_that_cannot_be_represented(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.from_diffusers_dit_config({"_class_name": "DiTTransformer2DModel", **TINY, **change})


def test_every_key_of_diffusers_is_read_or_refused_by_name() -> None:
    defaults = {key: value for key, value in diffusers.DiTTransformer2DModel().config.items() if key[0] != "_"}
    assert defaults.keys() == SIZES.keys() | NEUTRAL.keys() | UNREAD
    assert {key: defaults[key] for key in SIZES} == SIZES
    assert all(defaults[key] in values for key, values in NEUTRAL.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_scale": 1000.0}, "computes with {'time_scale': 1.0}, but"),
        ({"norm_eps": 1e-5}, "computes with {'norm_eps': 1e-06}, but"),
        ({"rotary": True}, "computes with {'rotary': False}, but"),
        ({"swiglu": True}, "computes with {'swiglu': False}, but"),
        ({"qk_norm": True}, "no name for ['blocks.0.attention.norm_q.0.weight'"),
        ({"size": (8, 4)}, "only square data and one class condition; the network has 4 x 2 patches"),
        ({"classes": {}}, "one class condition; the network has 4 x 4 patches and []"),
    ],
)
def test_networks_that_diffusers_has_not_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    model = dl.dit(**{**RELEASED, "time_shift": 1, **options})
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.save_diffusers_dit(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_learned_positions_are_refused(tmp_path: Path) -> None:
    model = dl.dit(**RELEASED, time_shift=1)
    with torch.no_grad():
        model.positions.add_(0.1)
    with pytest.raises(ValueError, match="diffusers computes the vectors of the positions"):
        dl.save_diffusers_dit(model, tmp_path)


def test_weights_of_another_network_are_named() -> None:
    tensors = original(oracle())
    del tensors["blocks.1.mlp.fc1.bias"]
    with pytest.raises(ValueError, match=r"1 missing: \['blocks.1.mlp.fc1.bias'\]; 1 unexpected: \['gate'\]"):
        dl.load_dit(dl.dit(**RELEASED), {**tensors, "gate": torch.zeros(1)})
    for options in ({"time_shift": 1}, {"feed_forward_eps": 1e-5}):
        with pytest.raises(ValueError, match="the code of DiT computes with"):
            dl.load_dit(dl.dit(**RELEASED, **options), tensors)
