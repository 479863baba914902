"""``PixArtTransformer2DModel`` of diffusers, which is the oracle of ``pixart``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.convert import read_model
from diffusion_labs.interop.diffusers_folder import write_diffusers
from diffusion_labs.interop.diffusers_pixart import NEUTRAL, SIZES, UNREAD
from tests.catalogue import randomise

diffusers = pytest.importorskip("diffusers", reason="PixArtTransformer2DModel of diffusers is the oracle here")

TINY = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "cross_attention_dim": 24}
CONFIGS: dict[str, dict[str, Any]] = {
    "alpha": {"sample_size": 8, "caption_channels": 6, "use_additional_conditions": True, "interpolation_scale": 2.0},
    "sigma": {
        "sample_size": 12,
        "caption_channels": 5,
        "in_channels": 3,
        "out_channels": None,
        "patch_size": 3,
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "num_layers": 3,
        "norm_eps": 1e-3,
    },
}


def theirs(name: str) -> nn.Module:
    return randomise(diffusers.PixArtTransformer2DModel(**{**TINY, **CONFIGS[name]})).eval()


def assert_same_function(model: dl.PixArt, other: nn.Module, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(3, other.config.in_channels, height, width, generator=generator), torch.tensor([0, 321, 999])
    text = torch.randn(3, 4, other.config.caption_channels, generator=generator)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True], [False, True, False, True]])
    conditions: dict[str, Tensor] = {"text": text, "text_mask": mask}
    added = {"resolution": None, "aspect_ratio": None}
    if other.config.use_additional_conditions:
        added = {"resolution": torch.tensor([[512.0, 768.0]] * 3), "aspect_ratio": torch.tensor([[0.7], [1.0], [2.0]])}
        conditions |= added
    with torch.no_grad():
        expected = other(x, text, timestep=t, encoder_attention_mask=mask.float(), added_cond_kwargs=added).sample
        output = model.eval()(x, t, conditions)
    actual = output.prediction
    if output.variance_value is not None:
        actual = torch.cat([actual, 2 * output.variance_value - 1], 1)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_of_diffusers_are_read_and_written_back(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    other.save_pretrained(tmp_path / "theirs")
    model = dl.load_diffusers_pixart(tmp_path / "theirs")
    size = other.config.sample_size
    assert_same_function(model, other, size, size)
    assert_same_function(model, other, size, 2 * size)  # positions of the same range

    write_diffusers(model, tmp_path / "transformer")
    back, loading = diffusers.PixArtTransformer2DModel.from_pretrained(
        tmp_path / "transformer", output_loading_info=True
    )
    assert not any(loading.values())
    assert back.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in other.state_dict().items())
    saved = json.loads((tmp_path / "transformer" / "config.json").read_text())
    assert saved.keys() == {"_class_name", *SIZES, *NEUTRAL}
    unset = {key for key in SIZES if other.config[key] is None}  # written as the numbers that they stand for
    for key in saved.keys() - {"_class_name"} - unset:
        assert saved[key] == other.config[key], key
    again = read_model(tmp_path / "transformer")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_every_key_of_diffusers_is_read_or_refused_by_name() -> None:
    with torch.device("meta"):
        config = diffusers.PixArtTransformer2DModel().config
    defaults = {key: value for key, value in config.items() if key[0] != "_"}
    assert defaults.keys() == SIZES.keys() | NEUTRAL.keys() | UNREAD
    assert {key: defaults[key] for key in SIZES} == SIZES
    assert all(defaults[key] in values for key, values in NEUTRAL.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "DiTTransformer2DModel"}, "_class_name='DiTTransformer2DModel' is not known here"),
        ({"attention_type": "gated"}, "attention_type='gated' cannot be represented; it must be one of"),
        ({"cross_attention_dim": 12}, "cross_attention_dim=12 cannot be represented; it must be 24"),
        ({"caption_channels": None}, "caption_channels=None cannot be represented; it must be one number"),
        ({"heads": 3}, "heads=3 is not known; remove it"),
    ],
)
def test_configurations_that_cannot_be_represented(change: dict, message: str) -> None:
    given = {"_class_name": "PixArtTransformer2DModel", **TINY, **CONFIGS["alpha"], **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.from_diffusers_pixart_config(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_scale": 1000.0}, "computes with {'time_scale': 1.0}, but"),
        ({"size": (8, 4)}, "the network has 4 x 2 patches, ['text'] and {}"),
        ({"numbers": {"sizes": 4}}, "the network has 4 x 4 patches, ['text'] and {'sizes': 4}"),
        ({"classes": {"class": 3}}, "no name for ['embedding.classes.class_.table.weight']"),
    ],
)
def test_networks_that_diffusers_has_not_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"size": 8, "dim": 16, "depth": 1, "num_heads": 2, "tokens": {"text": 6}}
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.save_diffusers_pixart(dl.pixart(**{**sizes, **options}), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


# What is known of the released configurations
RELEASED = {
    "PixArt-XL/2-512": {"sample_size": 64, "caption_channels": 4096},
    "PixArt-XL/2-1024": {"sample_size": 128, "caption_channels": 4096},
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_the_weights_of_theirs(name: str) -> None:
    with torch.device("meta"):
        other = diffusers.PixArtTransformer2DModel(**RELEASED[name])
        model = dl.pixart(**dl.PIXARTS[name])
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in other.parameters())
    assert model.positions.scale == other.pos_embed.interpolation_scale
