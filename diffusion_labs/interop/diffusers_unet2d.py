"""The sizes of ``UNet2DModel`` of diffusers: the U-Nets of DDPM and of ADM."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_labs.interop.diffusers_models import ModelConfig
from diffusion_labs.models.adm_unet import ADMUNet, adm_unet

# Keys that choose the sizes, with the defaults of the class
SIZES: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D"] + ["AttnDownBlock2D"] * 3,
    "up_block_types": ["AttnUpBlock2D"] * 3 + ["UpBlock2D"],
    "downsample_type": "conv",
    "upsample_type": "conv",
    "downsample_padding": 1,
    "add_attention": True,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "dropout": 0.0,
    "resnet_time_scale_shift": "default",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "num_class_embeds": None,
}
# Keys that change the network in ways that ours has not, with the values at which they do nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
}
UNREAD = frozenset({"num_train_timesteps"})  # of learned embeddings of the time

SCALE_SHIFT = {"default": False, "scale_shift": True}
PADDINGS = {1: (1, 1), 0: (0, 1)}
# By how they resample: with convolutions or in residual blocks. Those with attention have a key for that
PLAIN = {
    "down": {"DownBlock2D": False, "ResnetDownsampleBlock2D": True},
    "up": {"UpBlock2D": False, "ResnetUpsampleBlock2D": True},
}
ATTENTION = {"down": "AttnDownBlock2D", "up": "AttnUpBlock2D"}
RESIDUAL = {"conv": False, None: False, "resnet": True}


def mults(widths: Sequence[int]) -> list[float]:
    """The widths in units of the first, rounded up, as ``adm_unet`` rounds down."""
    return [
        width // widths[0] if width % widths[0] == 0 else math.nextafter(width / widths[0], math.inf)
        for width in widths
    ]


def from_unet2d_config(given: Mapping[str, Any], *, learned_variance: bool = False) -> ADMUNet:
    """See ``from_diffusers_unet_config``."""
    config = ModelConfig(given, SIZES, NEUTRAL, UNREAD)
    config.number("in_channels", "out_channels", "layers_per_block", "norm_num_groups")
    widths, groups = list(config["block_out_channels"]), config["norm_num_groups"]

    attention, residual = {}, []
    for side, plain in PLAIN.items():
        kinds = {kind: (False, resampling) for kind, resampling in plain.items()}
        kinds[ATTENTION[side]] = (True, config.choose(f"{side}sample_type", RESIDUAL))
        blocks = config.choose_each(f"{side}_block_types", kinds, len(widths))
        attention[side] = [has for has, _ in blocks]
        residual += [resampling for _, resampling in blocks[:-1]]  # the last of each keeps its resolution
    if attention["up"] != attention["down"][::-1]:
        raise config.refused("up_block_types", "must have attention where down_block_types has, in the opposite order")
    if len(set(residual)) > 1:
        raise config.refused(
            "down_block_types",
            f"cannot be represented with downsample_type={config['downsample_type']!r}, upsample_type="
            f"{config['upsample_type']!r} and up_block_types={config['up_block_types']!r}; all changes of resolution "
            "must be convolutions, or all residual blocks",
        )

    levels = [level for level, has in enumerate(attention["down"]) if has]
    head = config["attention_head_dim"]
    attended = [widths[level] for level in levels] + [widths[-1]] * config["add_attention"]
    if head is not None and (not isinstance(head, int) or any(width % head for width in attended)):
        raise config.refused("attention_head_dim", f"must be a number that divides {attended}, or None")
    scale_shift = config.choose("resnet_time_scale_shift", SCALE_SHIFT)
    middle_groups = config["attn_norm_num_groups"]
    if middle_groups is None and not scale_shift:
        middle_groups = groups
    if config["add_attention"] and middle_groups != groups:
        raise config.refused(
            "attn_norm_num_groups", f"cannot be represented; it must be norm_num_groups ({groups}), as in all blocks"
        )
    if not config["flip_sin_to_cos"] and widths[0] % 2:
        raise config.refused("flip_sin_to_cos", f"cannot be represented with an odd width ({widths[0]})")

    classes = config["num_class_embeds"]
    return adm_unet(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"] // (1 + learned_variance),
        model_channels=widths[0],
        channel_mult=mults(widths),
        num_res_blocks=config["layers_per_block"],
        attention_levels=levels,
        middle_attention=config["add_attention"],
        head_channels=head,
        attention_order="new",
        scale_shift=scale_shift,
        residual_resampling=any(residual),
        downsample_padding=config.choose("downsample_padding", PADDINGS),
        learned_variance=learned_variance,
        dropout=config["dropout"],
        classes=None if classes is None else {"class": classes - 1},
        embed_dim=config["time_embedding_dim"],
        time_shift=config["freq_shift"],
        num_groups=groups,
        norm_eps=config["norm_eps"],
    )
