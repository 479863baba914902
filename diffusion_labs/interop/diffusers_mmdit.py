"""``SD3Transformer2DModel`` in the folders of diffusers, without diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion_labs.interop.diffusers_models import ModelConfig, check_class, load_model, refuse_others, write_model
from diffusion_labs.interop.dit_rules import BATCHED
from diffusion_labs.interop.key_rules import UNCHANGED, KeyRule, KeyRules, TensorChange, nested
from diffusion_labs.models.transformer import MMDiT, mmdit

NAME = "SD3Transformer2DModel"
SIZES: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 18,
    "attention_head_dim": 64,
    "num_attention_heads": 18,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 96,
    "dual_attention_layers": (),
    "qk_norm": None,
}
QK_NORM = {None: False, "rms_norm": True}
# Where theirs has scale and shift in this order, ours has shift and scale
SWAPPED = TensorChange(*[lambda tensor: torch.cat(tensor.chunk(2)[::-1])] * 2)


def mmdit_rules(model: MMDiT) -> KeyRules:
    """Between the keys of diffusers and those of a network.

    Args:
        model: with one token condition and one vector condition.
    """
    block = [
        KeyRule("norm1.linear.*", "image.modulation.1.*"),
        KeyRule("attn.to_q,to_k,to_v.*", "image.attention.qkv.*"),
        KeyRule("attn.norm_q.*", "image.attention.norm_q.*"),
        KeyRule("attn.norm_k.*", "image.attention.norm_k.*"),
        KeyRule("attn.to_out.0.*", "image.attention.out.*"),
        KeyRule("attn2.to_q,to_k,to_v.*", "image.self_attention.qkv.*"),
        KeyRule("attn2.norm_q.*", "image.self_attention.norm_q.*"),
        KeyRule("attn2.norm_k.*", "image.self_attention.norm_k.*"),
        KeyRule("attn2.to_out.0.*", "image.self_attention.out.*"),
        KeyRule("ff.net.0.proj.*", "image.feed_forward.linear_in.*"),
        KeyRule("ff.net.2.*", "image.feed_forward.linear_out.*"),
        KeyRule("attn.add_q_proj,add_k_proj,add_v_proj.*", "context.attention.qkv.*"),
        KeyRule("attn.norm_added_q.*", "context.attention.norm_q.*"),
        KeyRule("attn.norm_added_k.*", "context.attention.norm_k.*"),
        KeyRule("attn.to_add_out.*", "context.attention.out.*"),
        KeyRule("ff_context.net.0.proj.*", "context.feed_forward.linear_in.*"),
        KeyRule("ff_context.net.2.*", "context.feed_forward.linear_out.*"),
    ]
    last = len(model.blocks) - 1
    context = [
        KeyRule(
            f"transformer_blocks.{i}.norm1_context.linear.*",
            f"blocks.{i}.context.modulation.1.*",
            SWAPPED if i == last else UNCHANGED,
        )
        for i in range(len(model.blocks))
    ]
    layers = [KeyRule("linear_1.*", "linear_in.*"), KeyRule("linear_2.*", "linear_out.*")]
    embeddings = {
        "time_text_embed.timestep_embedder": "embedding.time",
        "time_text_embed.text_embedder": "embedding.joint",
    }
    return KeyRules(
        [
            KeyRule("pos_embed.proj.*", "patches.*"),
            KeyRule("pos_embed.pos_embed", "positions.vectors", BATCHED),
            *nested(embeddings, layers),
            *[KeyRule("context_embedder.*", f"embedding.tokens.{name}.linear.*") for name in _tokens(model)[:1]],
            *nested({"transformer_blocks.{i}": "blocks.{i}"}, block),
            *context,
            KeyRule("norm_out.linear.*", "head.modulation.1.*", SWAPPED),
            KeyRule("proj_out.*", "head.linear.*"),
        ],
        joined=[("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")],
    )


def load_diffusers_mmdit(folder: str | Path, *, variant: str | None = None) -> MMDiT:
    """Read a ``SD3Transformer2DModel`` that diffusers saved: Stable Diffusion 3 and 3.5. It need not be installed.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``transformer``: safetensors or pickles, whole or in
            parts.
        variant: of the names of the weights, for example ``"fp16"``.

    Returns:
        The network, in torch's default dtype, with the conditions ``text`` and ``pooled_text``. Its times go up to
        1000, as in ``StableDiffusion3Pipeline``, and its prediction is that of ``FlowPredictor``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.

    Example:
        >>> network = load_diffusers_mmdit("stable-diffusion-3-medium")
        >>> schedule = RectifiedFlowSchedule(terminal=1000.0)
        >>> sampler = EulerSampler(network, schedule, FlowPredictor(schedule))
    """
    return load_model(folder, "transformer", variant, from_diffusers_mmdit_config, mmdit_rules)


def from_diffusers_mmdit_config(given: Mapping[str, Any]) -> MMDiT:
    """The network of a ``config.json`` of diffusers, with random weights.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    check_class(given, NAME)
    config = ModelConfig(given, SIZES, {})
    config.number(*(key for key in SIZES if key not in ("out_channels", "dual_attention_layers", "qk_norm")))
    dim, patch_size, most = (
        config["num_attention_heads"] * config["attention_head_dim"],
        config["patch_size"],
        config["pos_embed_max_size"],
    )
    if config["caption_projection_dim"] != dim:
        raise config.refused("caption_projection_dim", f"cannot be represented; it must be {dim}, the network's width")
    return mmdit(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        max_size=most * patch_size,
        position_scale=most / (config["sample_size"] // patch_size),
        patch_size=patch_size,
        dim=dim,
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        qk_norm=config.choose("qk_norm", QK_NORM),
        dual_attention=config["dual_attention_layers"],
        tokens={"text": config["joint_attention_dim"]},
        vectors={"pooled_text": config["pooled_projection_dim"]},
    )


def save_diffusers_mmdit(model: MMDiT, folder: str | Path) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads.

    Args:
        model: from ``mmdit``, with one token condition and one vector condition, in any dtype.
        folder: is made.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    config = to_diffusers_mmdit_config(model)
    write_model(folder, config, mmdit_rules(model).to_theirs(model.state_dict()))


def to_diffusers_mmdit_config(model: MMDiT) -> dict[str, Any]:
    """The ``config.json`` of diffusers for a network.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    parts: Any = model
    time, block, (rows, columns) = parts.embedding.time, parts.blocks[0], parts.positions.size
    refuse_others(
        {"time_shift": time.shift, "time_scale": time.scale}, {"time_shift": 0, "time_scale": 1.0}, "diffusers"
    )
    vectors = {} if parts.embedding.joint is None else parts.embedding.joint.condition_shapes
    if rows != columns or len(_tokens(model)) != 1 or len(vectors) != 1:
        raise ValueError(
            "diffusers has only square grids, one token condition and one vector condition; the network has "
            f"{rows} x {columns} positions, {_tokens(model)} and {list(vectors)}"
        )
    attention, side = block.image.attention, parts.head.patch_size
    dim, norm = attention.qkv.in_features, len(attention.norm_q.state_dict()) > 0
    return {
        "_class_name": NAME,
        "sample_size": round(rows / parts.positions.scale) * side,
        "patch_size": side,
        "in_channels": parts.patches.in_channels,
        "num_layers": len(parts.blocks),
        "attention_head_dim": dim // attention.num_heads,
        "num_attention_heads": attention.num_heads,
        "joint_attention_dim": parts.embedding.tokens[_tokens(model)[0]].width,
        "caption_projection_dim": dim,
        "pooled_projection_dim": next(iter(vectors.values()))[0],
        "out_channels": parts.head.linear.out_features // side**2,
        "pos_embed_max_size": rows,
        "dual_attention_layers": [i for i, each in enumerate(parts.blocks) if hasattr(each.image, "self_attention")],
        "qk_norm": next(key for key, value in QK_NORM.items() if value == norm),
    }


def _tokens(model: MMDiT) -> list[str]:
    return list(model.embedding.tokens)
