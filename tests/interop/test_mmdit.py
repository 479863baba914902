"""``SD3Transformer2DModel`` of diffusers, which is the oracle of ``mmdit``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.interop.convert import read_model
from diffusion_labs.interop.diffusers_folder import write_diffusers
from diffusion_labs.interop.diffusers_mmdit import SIZES, mmdit_rules
from diffusion_labs.interop.key_rules import load_foreign
from tests.catalogue import randomise

diffusers = pytest.importorskip("diffusers", reason="SD3Transformer2DModel of diffusers is the oracle here")

CONFIGS: dict[str, dict[str, Any]] = {
    "sd3": {
        "sample_size": 8,
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 6,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 5,
        "out_channels": 4,
        "pos_embed_max_size": 6,
    },
    "sd35": {
        "sample_size": 6,
        "patch_size": 1,
        "in_channels": 3,
        "num_layers": 3,
        "attention_head_dim": 4,
        "num_attention_heads": 3,
        "joint_attention_dim": 7,
        "caption_projection_dim": 12,
        "pooled_projection_dim": 4,
        "out_channels": 2,
        "pos_embed_max_size": 9,
        "dual_attention_layers": (0, 2),
        "qk_norm": "rms_norm",
    },
}


def theirs(name: str) -> nn.Module:
    return randomise(diffusers.SD3Transformer2DModel(**CONFIGS[name])).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_of_diffusers_are_read_and_written_back(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    other.save_pretrained(tmp_path / "theirs")
    model = dl.load_diffusers_mmdit(tmp_path / "theirs").eval()
    x, text = torch.randn(3, other.config.in_channels, 6, 4), torch.randn(3, 4, other.config.joint_attention_dim)
    t, pooled = torch.tensor([0.0, 321.5, 1000.0]), torch.randn(3, other.config.pooled_projection_dim)
    with torch.no_grad():
        expected = other(x, text, pooled, t).sample
        actual = model(x, t, {"text": text, "pooled_text": pooled}).prediction
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5

    write_diffusers(model, tmp_path / "transformer")
    back, loading = diffusers.SD3Transformer2DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(loading.values())
    assert back.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in other.state_dict().items())
    saved = json.loads((tmp_path / "transformer" / "config.json").read_text())
    assert saved.keys() == {"_class_name", *SIZES}
    assert {key: saved[key] for key in SIZES} == json.loads(json.dumps({key: other.config[key] for key in SIZES}))
    again = read_model(tmp_path / "transformer")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_with_the_rectified_flow_samples_are_those_of_diffusers() -> None:
    """The whole way from noise, with the scheduler of Stable Diffusion 3.

    Its times are float32, and their rounding shows in the sinusoids of 1000, so they end at 8 here.
    """
    other = theirs("sd3")
    model = dl.from_diffusers_mmdit_config({"_class_name": "SD3Transformer2DModel", **CONFIGS["sd3"]})
    load_foreign(model, other.state_dict(), mmdit_rules(model))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=8, shift=3.0)
    parts = dl.from_diffusers_config({"_class_name": "FlowMatchEulerDiscreteScheduler", **dict(scheduler.config)})
    sampler = dl.EulerSampler(
        model, parts.schedule, parts.predictor, eval_steps=3, grid=parts.spacing, progress_bar=False
    )
    x, text, pooled = torch.randn(2, 4, 6, 4), torch.randn(2, 4, 6), torch.randn(2, 5)
    scheduler.set_timesteps(3)
    expected = x
    with torch.no_grad():
        for t in scheduler.timesteps:
            expected = scheduler.step(other(expected, text, pooled, t.expand(2)).sample, t, expected).prev_sample
        actual = sampler.eval()(x, conditional_inputs={"text": text, "pooled_text": pooled})
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_every_key_of_diffusers_is_read() -> None:
    with torch.device("meta"):
        config = diffusers.SD3Transformer2DModel().config
    assert {key: value for key, value in config.items() if key[0] != "_"} == SIZES


@pytest.mark.parametrize("name", CONFIGS)
def test_positions_are_those_of_diffusers(name: str) -> None:
    """Before any are read."""
    expected = diffusers.SD3Transformer2DModel(**CONFIGS[name]).pos_embed.pos_embed[0]
    model = dl.from_diffusers_mmdit_config({"_class_name": "SD3Transformer2DModel", **CONFIGS[name]})
    torch.testing.assert_close(model.positions.vectors.data, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "DiTTransformer2DModel"}, "_class_name='DiTTransformer2DModel' is not known here"),
        ({"qk_norm": "layer_norm"}, "qk_norm='layer_norm' cannot be represented; it must be one of [None, 'rms_norm']"),
        ({"caption_projection_dim": 12}, "caption_projection_dim=12 cannot be represented; it must be 16"),
        ({"pos_embed_max_size": None}, "pos_embed_max_size=None cannot be represented; it must be one number"),
        ({"heads": 3}, "heads=3 is not known; remove it"),
    ],
)
def test_configurations_that_cannot_be_represented(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.from_diffusers_mmdit_config({"_class_name": "SD3Transformer2DModel", **CONFIGS["sd3"], **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_scale": 1000.0}, "computes with {'time_scale': 1.0}, but"),
        ({"max_size": (8, 4)}, "the network has 4 x 2 positions, ['text'] and ['pooled_text']"),
        ({"vectors": {}}, "the network has 4 x 4 positions, ['text'] and []"),
        ({"classes": {"class": 3}}, "no name for ['embedding.classes.class_.table.weight']"),
    ],
)
def test_networks_that_diffusers_has_not_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"max_size": 8, "dim": 8, "depth": 1, "num_heads": 2, "tokens": {"text": 6}}
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.save_diffusers_mmdit(dl.mmdit(**{**sizes, **options}), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


# The released configurations
MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192}
RELEASED: dict[str, dict[str, Any]] = {
    "SD3-medium": MEDIUM,
    "SD3.5-medium": {
        **MEDIUM,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    },
    "SD3.5-large": {**LARGE, "qk_norm": "rms_norm"},
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_the_weights_of_theirs(name: str) -> None:
    with torch.device("meta"):
        other = diffusers.SD3Transformer2DModel(**RELEASED[name])
        model = dl.mmdit(**dl.MMDITS[name])
    vectors = model.positions.vectors
    assert vectors.numel() == other.pos_embed.pos_embed.numel()
    ours = sum(p.numel() for p in model.parameters()) - vectors.numel()
    assert ours == sum(p.numel() for p in other.parameters())
