"""The sizes of ``UNet2DConditionModel`` of diffusers: the latent U-Nets of Stable Diffusion."""

from collections.abc import Mapping
from typing import Any

from diffusion_labs.interop.diffusers_models import ModelConfig
from diffusion_labs.interop.diffusers_unet2d import PADDINGS, SCALE_SHIFT, mults
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.ldm import ldm_unet

# Keys that choose the sizes, with the defaults of the class
SIZES: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "dropout": 0.0,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "num_class_embeds": None,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "downsample_padding": 1,
}
# Keys that change the network in ways that ours has not, with the values at which they do nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "only_cross_attention": (False,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
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

ATTENTION = {
    "down_block_types": {"DownBlock2D": False, "CrossAttnDownBlock2D": True},
    "up_block_types": {"UpBlock2D": False, "CrossAttnUpBlock2D": True},
}
SIX_SIZES = 6  # of the image before, its corner, and its target: heights and widths


def from_unet2d_condition_config(given: Mapping[str, Any], *, learned_variance: bool = False) -> ADMUNet:
    """See ``from_diffusers_unet_config``."""
    config = ModelConfig(given, SIZES, NEUTRAL, UNREAD)
    config.number("in_channels", "out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim")
    widths = list(config["block_out_channels"])
    attention = {key: config.choose_each(key, kinds, len(widths)) for key, kinds in ATTENTION.items()}
    if attention["up_block_types"] != attention["down_block_types"][::-1]:
        raise config.refused("up_block_types", "must have attention where down_block_types has, in the opposite order")
    levels = [level for level, has in enumerate(attention["down_block_types"]) if has]

    def per_level(key: str) -> list[int]:
        values = [config[key]] * len(widths) if isinstance(config[key], int) else list(config[key])
        if len(values) != len(widths) or not all(isinstance(value, int) for value in values):
            raise config.refused(
                key, "cannot be represented; it must be a number, or one for each of block_out_channels"
            )
        return values

    # What diffusers calls the width of the heads is their number
    heads = per_level("attention_head_dim")
    attended = sorted({*levels, len(widths) - 1})
    head_numbers = {heads[level] for level in attended}
    head_widths = {widths[level] / heads[level] for level in attended}
    if len(head_numbers) > 1 and len(head_widths) > 1:
        raise config.refused("attention_head_dim", "cannot be represented; heads must have one number or one width")

    conditions: dict[str, Any] = {}
    if config.choose("class_embed_type", {None: False, "projection": True}):
        if config["addition_embed_type"] is not None:
            raise config.refused("addition_embed_type", "cannot be represented beside class_embed_type='projection'")
        config.number("projection_class_embeddings_input_dim")
        conditions["vectors"] = {"class_vector": config["projection_class_embeddings_input_dim"]}
    elif config["num_class_embeds"] is not None:
        conditions["classes"] = {"class": config["num_class_embeds"] - 1}
    if config["addition_embed_type"] == "text_time":
        dim, width = config["addition_time_embed_dim"], config["projection_class_embeddings_input_dim"]
        conditions |= {"vectors": {"pooled_text": width - SIX_SIZES * dim}, "frequency_dim": dim}
        conditions["numbers"] = {"sizes": SIX_SIZES}
    elif config["addition_embed_type"] is not None:
        raise config.refused("addition_embed_type", "cannot be represented; it must be None or 'text_time'")

    return ldm_unet(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"] // (1 + learned_variance),
        model_channels=widths[0],
        channel_mult=mults(widths),
        num_res_blocks=config["layers_per_block"],
        attention_levels=levels,
        depth=per_level("transformer_layers_per_block"),
        num_heads=heads[-1],
        head_channels=int(head_widths.pop()) if len(head_numbers) > 1 else None,
        tokens={"text": config["cross_attention_dim"]},
        scale_shift=config.choose("resnet_time_scale_shift", SCALE_SHIFT),
        downsample_padding=config.choose("downsample_padding", PADDINGS),
        learned_variance=learned_variance,
        num_groups=config["norm_num_groups"],
        norm_eps=config["norm_eps"],
        dropout=config["dropout"],
        **conditions,
    )
