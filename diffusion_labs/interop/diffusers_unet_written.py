"""The ``config.json`` of diffusers for a U-Net, found from its parts."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from diffusion_labs.interop.diffusers_unet2d import ATTENTION, PLAIN, SCALE_SHIFT
from diffusion_labs.interop.diffusers_unet2d_condition import ATTENTION as CROSS_ATTENTION
from diffusion_labs.models.adm_unet import ADMUNet


def to_diffusers_unet_config(
    model: ADMUNet, read: Callable[[Mapping[str, Any]], ADMUNet], *, conv_projections: bool = True
) -> dict[str, Any]:
    """The configuration of a network with the same sizes.

    Args:
        model: from ``ldm_unet`` or ``adm_unet``.
        read: builds the network of a configuration, which is then compared with this one.
        conv_projections: see ``to_diffusers_unet``.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    parts = UNetParts(model)
    config = parts.shared()
    if any(hasattr(block, "blocks") for block in parts.blocks):
        config |= {**parts.with_tokens(), "use_linear_projection": not conv_projections}
    else:
        config |= parts.without_tokens()
    try:
        with torch.device("meta"):
            same = describe_unet(read(config)) == describe_unet(model)
    except ValueError as error:
        raise ValueError(f"diffusers has no such U-Net: {error}") from error
    if not same:
        raise ValueError(
            f"diffusers has no such U-Net: sizes, heads, norms or conditions differ from those of {config}; its "
            "networks are 2-dimensional, resample between all levels, and have the same options in all of their blocks"
        )
    return config


class UNetParts:
    """The parts of a U-Net by level, of which diffusers counts as many as resolutions."""

    def __init__(self, model: ADMUNet) -> None:
        num_levels = model.size_multiple.bit_length()
        stages: list[Any] = list(model.encoder)
        self.model = model
        self.per_level = (len(stages) + 1) // num_levels
        if (len(stages) + 1) % num_levels or self.per_level < 2:
            raise ValueError(
                f"diffusers has no such U-Net: {len(stages)} stages do not divide into {num_levels} resolutions; "
                "it resamples between all levels"
            )
        self.levels: list[Any] = [stages[i * self.per_level :][: self.per_level - 1] for i in range(num_levels)]
        self.resamplings: list[Any] = [stages[(i + 1) * self.per_level - 1][0] for i in range(num_levels - 1)]
        self.attentions: list[Any] = [list(level[0])[1:] for level in self.levels]
        self.middle: list[Any] = list(model.middle)[1:-1]
        self.blocks: list[Any] = [block for blocks in (*self.attentions, self.middle) for block in blocks]

    def shared(self) -> dict[str, Any]:
        model: Any = self.model
        block = self.levels[0][0][0]
        convolutions = [b.resample.conv for b in self.resamplings if hasattr(b.resample, "conv")]
        adds = block.norm_out.projection.out_features == block.conv_in.out_channels
        return {
            "in_channels": model.conv_in.in_channels,
            "out_channels": model.head.conv.out_channels,
            "block_out_channels": [level[0][0].conv_in.out_channels for level in self.levels],
            "layers_per_block": self.per_level - 1,
            "downsample_padding": convolutions[0].padding[0] if convolutions else 1,
            "norm_num_groups": block.norm_in.num_groups,
            "norm_eps": block.norm_in.eps,
            "dropout": block.dropout,
            "resnet_time_scale_shift": name_of(SCALE_SHIFT, not adds),
            "num_class_embeds": next((classes + 1 for classes in model.null_conditions.values()), None),
            "flip_sin_to_cos": True,
            "freq_shift": model.embedding.time.shift,
            "act_fn": "silu",
        }

    def without_tokens(self) -> dict[str, Any]:
        residual = any(hasattr(block, "conv_in") for block in self.resamplings)
        types = {
            side: [ATTENTION[side] if blocks else name_of(plain, residual) for blocks in self.attentions]
            for side, plain in PLAIN.items()
        }
        widths = {block.norm.num_channels // block.num_heads for block in self.blocks}
        embed_dim, first = self.model.embedding.time.embed_dim, self.model.conv_in
        return {
            "_class_name": "UNet2DModel",
            "down_block_types": types["down"],
            "up_block_types": types["up"][::-1],
            "downsample_type": "resnet" if residual else "conv",
            "upsample_type": "resnet" if residual else "conv",
            "attention_head_dim": widths.pop() if len(widths) == 1 else None,
            "add_attention": bool(self.middle),
            "time_embedding_dim": None if embed_dim == 4 * first.out_channels else embed_dim,
            "attn_norm_num_groups": self.levels[0][0][0].norm_in.num_groups,
        }

    def with_tokens(self) -> dict[str, Any]:
        down, up = CROSS_ATTENTION["down_block_types"], CROSS_ATTENTION["up_block_types"]
        # The middle is of the last level; one without attention gets heads of the same width, which are never made
        transformers = {level: blocks[0] for level, blocks in enumerate(self.attentions) if blocks}
        transformers |= {len(self.levels) - 1: block for block in self.middle}
        heads = {level: block.blocks[0].self_attention.num_heads for level, block in transformers.items()}
        depths = {level: len(block.blocks) for level, block in transformers.items()}
        width = min(block.norm.num_channels // heads[level] for level, block in transformers.items())
        plain = [max(1, stages[0][0].conv_in.out_channels // width) for stages in self.levels]
        embedding: Any = self.model.embedding
        config: dict[str, Any] = {
            "_class_name": "UNet2DConditionModel",
            "down_block_types": [name_of(down, bool(blocks)) for blocks in self.attentions],
            "up_block_types": [name_of(up, bool(blocks)) for blocks in reversed(self.attentions)],
            "attention_head_dim": _one([heads.get(level, number) for level, number in enumerate(plain)], heads),
            "transformer_layers_per_block": _one([depths.get(level, 1) for level in range(len(plain))], depths),
            "cross_attention_dim": next(iter(embedding.tokens.values())).width,
        }
        if embedding.joint is not None:
            dim = embedding.joint.frequency_dim
            projected = {"projection_class_embeddings_input_dim": embedding.joint.linear_in.in_features}
            numbers = {"addition_embed_type": "text_time", "addition_time_embed_dim": dim}
            config |= projected | (numbers if embedding.joint.numbers else {"class_embed_type": "projection"})
        return config


def _one(values: list[int], used: Mapping[int, int]) -> int | list[int]:
    return next(iter(used.values())) if len(set(used.values())) == 1 else values


def name_of(table: Mapping[str, bool], value: bool) -> str:
    return next(key for key, entry in table.items() if entry == value)


def describe_unet(model: ADMUNet) -> tuple[Any, ...]:
    """The shapes of the weights and of the conditions, and the settings that have none."""
    shapes = sorted((key, tuple(value.shape)) for key, value in model.state_dict().items() if ".classes." not in key)
    settings = []
    for name, module in model.named_modules():
        if name.startswith("embedding.classes"):
            continue
        found = [getattr(module, key, None) for key in ("num_groups", "eps", "num_heads", "p", "padding", "stride")]
        settings.append((type(module).__name__ if "Head" not in type(module).__name__ else "", found))
    time: Any = model.embedding.time
    conditions = list(model.condition_shapes.values())
    return shapes, settings, conditions, [time.max_period, time.shift, time.scale], list(model.null_conditions.values())
