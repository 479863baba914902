"""U-Nets that diffusers has and we have not, or the other way round, are refused by name."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import diffusion_labs as dl
from diffusion_labs.interop import diffusers_unet2d, diffusers_unet2d_condition
from diffusion_labs.interop.diffusers_models import NOTES

DOWN, UP, ATTENTION_DOWN, ATTENTION_UP = "DownBlock2D", "UpBlock2D", "AttnDownBlock2D", "AttnUpBlock2D"
RESIDUAL_DOWN, RESIDUAL_UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
TINY = {"block_out_channels": [16, 24, 24], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8}
ADM = {
    **TINY,
    "down_block_types": [RESIDUAL_DOWN, ATTENTION_DOWN, ATTENTION_DOWN],
    "up_block_types": [ATTENTION_UP, ATTENTION_UP, RESIDUAL_UP],
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 4,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"down_block_types": [DOWN, DOWN, "AttnSkipDownBlock2D"]},
            "must hold ['DownBlock2D', 'ResnetDownsampleBlock2D'",
        ),
        ({"up_block_types": [ATTENTION_UP] * 2}, "as many as block_out_channels"),
        ({"up_block_types": [UP, ATTENTION_UP, RESIDUAL_UP]}, "must have attention where down_block_types has"),
        ({"downsample_type": "conv"}, "all changes of resolution must be convolutions, or all residual"),
        ({"upsample_type": "fir"}, "upsample_type='fir' cannot be represented"),
        ({"attention_head_dim": 7}, "attention_head_dim=7 must be a number that divides [24, 24, 24], or None"),
        ({"attn_norm_num_groups": None}, "attn_norm_num_groups=None cannot be represented; it must be norm_num"),
        ({"attn_norm_num_groups": 8}, "attn_norm_num_groups=8 cannot be represented"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial' cannot be represented"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier' cannot be represented"),
        ({"mid_block_type": None}, "mid_block_type=None cannot be represented"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep' cannot be represented"),
        ({"downsample_padding": 2}, "downsample_padding=2 cannot be represented"),
        ({"center_input_sample": True}, "center_input_sample=True cannot be represented"),
        ({"norm_num_groups": None}, "norm_num_groups=None cannot be represented; it must be one number"),
        ({"new_key": 3}, "new_key=3 is not known; remove it"),
        ({"_class_name": "UNet3DModel"}, "_class_name='UNet3DModel' is not a U-Net of diffusers"),
    ],
)
def test_unconditional_configurations_that_cannot_be_represented(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.from_diffusers_unet_config({"_class_name": "UNet2DModel"} | ADM | change)


def test_an_odd_number_of_channels_has_no_variance_in_it() -> None:
    with pytest.raises(ValueError, match="out_channels=3 must be even"):
        dl.from_diffusers_unet_config({"_class_name": "UNet2DModel", "out_channels": 3}, learned_variance=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new_key": 3}, "new_key=3 is not known; remove it"),
        ({"dual_cross_attention": True}, "dual_cross_attention=True cannot be represented; it must be one of [False]"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type='UNetMidBlock2D' cannot be represented"),
        ({"down_block_types": ["DownBlock2D"]}, "down_block_types=['DownBlock2D'] cannot be represented"),
        ({"up_block_types": ["CrossAttnUpBlock2D"] * 4}, "must have attention where down_block_types has"),
        ({"attention_head_dim": [8, 8, 4, 5]}, "heads must have one number or one width"),
        (
            {"attention_head_dim": [8, 8]},
            "attention_head_dim=[8, 8] cannot be represented; it must be a number, or one",
        ),
        ({"layers_per_block": [2, 2, 2, 2]}, "layers_per_block=[2, 2, 2, 2] cannot be represented; it must be one"),
        ({"cross_attention_dim": [6, 6, 6, 6]}, "cross_attention_dim=[6, 6, 6, 6] cannot be represented"),
        ({"addition_embed_type": "text"}, "addition_embed_type='text' cannot be represented"),
        ({"class_embed_type": "identity"}, "class_embed_type='identity' cannot be represented; it must be one of"),
        (
            {"class_embed_type": "projection", "addition_embed_type": "text_time"},
            "addition_embed_type='text_time' cannot be represented beside class_embed_type='projection'",
        ),
        (
            {"class_embed_type": "projection"},
            "projection_class_embeddings_input_dim=None cannot be represented; it must be one number",
        ),
    ],
)
def test_conditional_configurations_that_cannot_be_represented(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.from_diffusers_unet_config({"_class_name": "UNet2DConditionModel"} | change)


@pytest.mark.parametrize(
    ("name", "table"), [("UNet2DModel", diffusers_unet2d), ("UNet2DConditionModel", diffusers_unet2d_condition)]
)
def test_every_key_of_diffusers_is_read_or_refused_by_name(name: str, table: Any) -> None:
    """Each is a size, has one harmless value which is the class' default, or does not change the numbers."""
    diffusers = pytest.importorskip("diffusers", reason="has the keys")
    parameters = dict(inspect.signature(getattr(diffusers, name).__init__).parameters)
    del parameters["self"]
    assert parameters.keys() - NOTES == table.SIZES.keys() | table.NEUTRAL.keys() | table.UNREAD
    for key, parameter in parameters.items():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        if key in table.SIZES:
            assert default == table.SIZES[key], key
        if key in table.NEUTRAL:
            assert default in table.NEUTRAL[key], key


TINY_SIZES = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "num_groups": 4}


@pytest.mark.parametrize(
    "options",
    [
        {"dims": 1},
        {"residual_resampling": False, "conv_resample": False},
        {"num_resamples": 0},
        {"vectors": {"embedding": 3}},
        {"classes": {"class": 3, "style": 2}},
        {"tokens": {"text": 6}, "attention_levels": (1,)},
        {"time_scale": 1000.0},
        {"num_heads": 2, "attention_levels": (0, 1)},
        {"num_heads": 2, "num_heads_upsample": 1, "attention_levels": (1,)},
    ],
)
def test_networks_that_diffusers_has_not_are_refused(options: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"diffusers has no such U-Net|the other format has no name for"):
        dl.save_diffusers_unet(dl.adm_unet(**TINY_SIZES, **options), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"middle_attention": False},
        {"vectors": {"image": 5, "pooled": 3}},
        {"vectors": {"pooled": 5}, "numbers": {"sizes": 4}, "frequency_dim": 4},
    ],
)
def test_latent_networks_that_diffusers_has_not_are_refused(options: dict, tmp_path: Path) -> None:
    model = dl.ldm_unet(**TINY_SIZES, attention_levels=(1,), num_heads=2, tokens={"text": 6}, **options)
    with pytest.raises(ValueError, match="diffusers has no such U-Net"):
        dl.save_diffusers_unet(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
