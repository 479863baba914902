"""Latent U-Nets in the folders of diffusers, without diffusers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.interop.key_rules import load_foreign
from diffusion_labs.interop.unet_rules import diffusers_unet_rules
from diffusion_labs.interop.weight_files import read_diffusers_weights
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.ldm import ldm_unet

NAME, FILE = "UNet2DConditionModel", "config.json"
NOTES = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "sample_size"})

# Keys that choose the sizes, with the defaults of the class
SIZES: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "dropout": 0.0,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "num_class_embeds": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
}
# Keys that change the network in ways that ours has not, with the values at which they do nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
# Keys of the storage and of the arithmetic: weights of both kinds are read, and softmax never overflows here
UNREAD = frozenset({"use_linear_projection", "upcast_attention", "addition_embed_type_num_heads"})

_ATTENTION = {
    "down_block_types": {"DownBlock2D": False, "CrossAttnDownBlock2D": True},
    "up_block_types": {"UpBlock2D": False, "CrossAttnUpBlock2D": True},
}
_SIX_SIZES = 6  # of the image before, its corner, and its target: heights and widths
_MIDDLE = {"UNetMidBlock2DCrossAttn": True, None: False}
_SCALE_SHIFT = {"default": False, "scale_shift": True}


def load_diffusers_unet(folder: str | Path, *, variant: str | None = None) -> ADMUNet:
    """Read a ``UNet2DConditionModel`` that diffusers saved. It need not be installed.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``unet``: safetensors or pickles, whole or in parts.
        variant: of the names of the weights, for example ``"fp16"``.

    Returns:
        The network, in torch's default dtype, with the conditions of ``from_diffusers_unet_config``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.
    """
    folder = next(
        (Path(folder) / name for name in ("", "unet") if (Path(folder) / name / FILE).is_file()), Path(folder)
    )
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"{folder} has no {FILE}, itself or in 'unet'; give that of a model or a pipeline")
    with torch.device("meta"):
        model = from_diffusers_unet_config(json.loads((folder / FILE).read_text()))
    model.to_empty(device="cpu")
    load_foreign(model, read_diffusers_weights(folder, variant), diffusers_unet_rules(model))
    return model


def to_diffusers_unet(model: ADMUNet, *, conv_projections: bool = True) -> dict[str, Tensor]:
    """The weights of a latent U-Net by the names of ``UNet2DConditionModel``.

    Args:
        model: from ``ldm_unet`` with tokens.
        conv_projections: the opposite of ``use_linear_projection`` in the configuration of diffusers.

    Raises:
        ValueError: for a network that diffusers has no names for.
    """
    return diffusers_unet_rules(model, conv_projections=conv_projections).to_theirs(model.state_dict())


def from_diffusers_unet_config(config: Mapping[str, Any]) -> ADMUNet:
    """The network of a ``config.json`` of diffusers, with random weights.

    Its conditions are ``text``; ``class`` if there are class embeddings, of which the last counts as null;
    ``pooled_text`` and ``sizes`` if there are those of Stable Diffusion XL.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    if config.get("_class_name") != NAME:
        raise ValueError(f"_class_name={config.get('_class_name')!r} is not known here; it must be {NAME!r}")
    sizes = dict(SIZES)

    def refused(key: str, why: str) -> ValueError:
        return ValueError(f"{NAME}: {key}={sizes.get(key, config.get(key))!r} {why}")

    for key, value in config.items():
        if key in sizes:
            sizes[key] = value
        elif key in NEUTRAL:
            if value not in NEUTRAL[key]:
                raise refused(key, f"cannot be represented; it must be one of {list(NEUTRAL[key])}")
        elif key not in NOTES and key not in UNREAD:
            raise refused(key, "is not known; remove it, if it means nothing")

    channels = list(sizes["block_out_channels"])
    if any(width % channels[0] for width in channels):
        raise refused("block_out_channels", "cannot be represented; the first must divide the others")
    for key, table in (("mid_block_type", _MIDDLE), ("resnet_time_scale_shift", _SCALE_SHIFT)):
        if sizes[key] not in table:
            raise refused(key, f"cannot be represented; it must be one of {list(table)}")
    attention = {}
    for key, kinds in _ATTENTION.items():
        if len(sizes[key]) != len(channels) or any(kind not in kinds for kind in sizes[key]):
            raise refused(key, f"cannot be represented; it must hold {list(kinds)}, as many as block_out_channels")
        attention[key] = [kinds[kind] for kind in sizes[key]]
    if attention["up_block_types"] != attention["down_block_types"][::-1]:
        raise refused("up_block_types", "must have attention where down_block_types has, in the opposite order")
    levels = [level for level, has in enumerate(attention["down_block_types"]) if has]
    middle = _MIDDLE[sizes["mid_block_type"]]

    def per_level(key: str) -> list[int]:
        values = [sizes[key]] * len(channels) if isinstance(sizes[key], int) else list(sizes[key])
        if len(values) != len(channels) or not all(isinstance(value, int) for value in values):
            raise refused(key, "cannot be represented; it must be a number, or one for each of block_out_channels")
        return values

    # What diffusers calls the width of the heads is their number
    heads = per_level("attention_head_dim")
    attended = sorted({*levels, *[len(channels) - 1] * middle})
    numbers = {heads[level] for level in attended}
    widths = {channels[level] / heads[level] for level in attended}
    if len(numbers) > 1 and len(widths) > 1:
        raise refused("attention_head_dim", "cannot be represented; heads must have one number or one width")
    if any(not isinstance(sizes[key], int) for key in ("layers_per_block", "cross_attention_dim")):
        raise refused(
            "layers_per_block", f"and cross_attention_dim={sizes['cross_attention_dim']!r} must be one number"
        )

    conditions: dict[str, Any] = {}
    if sizes["num_class_embeds"] is not None:
        conditions["classes"] = {"class": sizes["num_class_embeds"] - 1}
    if sizes["addition_embed_type"] == "text_time":
        dim, width = sizes["addition_time_embed_dim"], sizes["projection_class_embeddings_input_dim"]
        conditions |= {"vectors": {"pooled_text": width - _SIX_SIZES * dim}, "frequency_dim": dim}
        conditions["numbers"] = {"sizes": _SIX_SIZES}
    elif sizes["addition_embed_type"] is not None:
        raise refused("addition_embed_type", "cannot be represented; it must be None or 'text_time'")

    return ldm_unet(
        in_channels=sizes["in_channels"],
        out_channels=sizes["out_channels"],
        model_channels=channels[0],
        channel_mult=[width // channels[0] for width in channels],
        num_res_blocks=sizes["layers_per_block"],
        attention_levels=levels,
        middle_attention=middle,
        depth=per_level("transformer_layers_per_block"),
        num_heads=heads[-1],
        head_channels=int(widths.pop()) if len(numbers) > 1 else None,
        tokens={"text": sizes["cross_attention_dim"]},
        scale_shift=_SCALE_SHIFT[sizes["resnet_time_scale_shift"]],
        num_groups=sizes["norm_num_groups"],
        norm_eps=sizes["norm_eps"],
        dropout=sizes["dropout"],
        **conditions,
    )
