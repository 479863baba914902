"""``PixArtTransformer2DModel`` in the folders of diffusers, without diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_labs.interop.diffusers_models import ModelConfig, check_class, load_model, refuse_others, write_model
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, nested
from diffusion_labs.models.transformer import PixArt, pixart

NAME = "PixArtTransformer2DModel"
SIZES: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "sample_size": 128,
    "patch_size": 2,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "use_additional_conditions": None,
    "caption_channels": None,
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dropout": (0.0,),
    "attention_bias": (True,),
    "activation_fn": ("gelu-approximate",),
    "norm_type": ("ada_norm_single",),
    "norm_elementwise_affine": (False,),
    "attention_type": ("default",),
}
UNREAD = frozenset({"norm_num_groups", "upcast_attention", "num_embeds_ada_norm"})
NUMBERS = {"resolution": 2, "aspect_ratio": 1}


def pixart_rules(model: PixArt) -> KeyRules:
    """Between the keys of diffusers and those of a network.

    Args:
        model: with one token condition, and with the numbers of PixArt-alpha or without numbers.
    """
    block = [
        KeyRule("scale_shift_table", "modulation.table"),
        KeyRule("attn1.to_q,attn1.to_k,attn1.to_v.*", "attention.qkv.*"),
        KeyRule("attn1.to_out.0.*", "attention.out.*"),
        KeyRule("attn2.to_q.*", "cross_attention.query.*"),
        KeyRule("attn2.to_k.*", "cross_attention.key.*"),
        KeyRule("attn2.to_v.*", "cross_attention.value.*"),
        KeyRule("attn2.to_out.0.*", "cross_attention.out.*"),
        KeyRule("ff.net.0.proj.*", "feed_forward.linear_in.*"),
        KeyRule("ff.net.2.*", "feed_forward.linear_out.*"),
    ]
    layers = [KeyRule("linear_1.*", "linear_in.*"), KeyRule("linear_2.*", "linear_out.*")]
    embeddings = {"adaln_single.emb.timestep_embedder": "embedding.time"}
    for theirs, ours in zip(NUMBERS, _numbers(model), strict=False):
        embeddings[f"adaln_single.emb.{theirs}_embedder"] = f"embedding.joint.embeddings.{ours}"
    for name in list(model.embedding.tokens)[:1]:
        embeddings["caption_projection"] = f"embedding.tokens.{name}"
    return KeyRules(
        [
            KeyRule("pos_embed.proj.*", "patches.*"),
            *nested(embeddings, layers),
            KeyRule("adaln_single.linear.*", "modulation.1.*"),
            *nested({"transformer_blocks.{i}": "blocks.{i}"}, block),
            KeyRule("scale_shift_table", "head.modulation.table"),
            KeyRule("proj_out.*", "head.linear.*"),
        ],
        joined=[("attn1.to_q", "attn1.to_k", "attn1.to_v")],
    )


def load_diffusers_pixart(folder: str | Path, *, variant: str | None = None) -> PixArt:
    """Read a ``PixArtTransformer2DModel`` that diffusers saved. It need not be installed.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``transformer``: safetensors or pickles, whole or in
            parts.
        variant: of the names of the weights, for example ``"fp16"``.

    Returns:
        The network, in torch's default dtype, with the condition ``text``, and ``resolution`` and ``aspect_ratio``
        where it has them. Twice as many output channels as input channels are the prediction and its variance.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.
    """
    return load_model(folder, "transformer", variant, from_diffusers_pixart_config, pixart_rules)


def from_diffusers_pixart_config(given: Mapping[str, Any]) -> PixArt:
    """The network of a ``config.json`` of diffusers, with random weights.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    check_class(given, NAME)
    config = ModelConfig(given, SIZES, NEUTRAL, UNREAD)
    config.number("num_layers", "in_channels", "sample_size", "patch_size", "caption_channels")
    in_channels, out_channels = config["in_channels"], config["out_channels"] or config["in_channels"]
    dim, size = config["num_attention_heads"] * config["attention_head_dim"], config["sample_size"]
    if config["cross_attention_dim"] != dim:
        raise config.refused(
            "cross_attention_dim", f"cannot be represented; it must be {dim}, the width of the network"
        )
    scale, has_numbers = config["interpolation_scale"], config["use_additional_conditions"]
    learned_variance = out_channels == 2 * in_channels
    return pixart(
        in_channels=in_channels,
        out_channels=in_channels if learned_variance else out_channels,
        size=size,
        patch_size=config["patch_size"],
        dim=dim,
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        learned_variance=learned_variance,
        tokens={"text": config["caption_channels"]},
        numbers=NUMBERS if (size == 128 if has_numbers is None else has_numbers) else None,
        position_scale=max(size // 64, 1) if scale is None else scale,
        norm_eps=config["norm_eps"],
    )


def save_diffusers_pixart(model: PixArt, folder: str | Path) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads.

    Args:
        model: from ``pixart``, with one token condition, in any dtype.
        folder: is made.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    config = to_diffusers_pixart_config(model)
    write_model(folder, config, pixart_rules(model).to_theirs(model.state_dict()))


def to_diffusers_pixart_config(model: PixArt) -> dict[str, Any]:
    """The ``config.json`` of diffusers for a network.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    parts: Any = model
    time, block, (rows, columns) = parts.embedding.time, parts.blocks[0], parts.positions.base
    actual = {"time_shift": time.shift, "time_scale": time.scale, "norm_eps of the head": parts.head.norm.eps}
    refuse_others(actual, {"time_shift": 0, "time_scale": 1.0, "norm_eps of the head": 1e-6}, "diffusers")
    numbers = list(_numbers(model).values())
    if rows != columns or len(parts.embedding.tokens) != 1 or numbers not in ([], list(NUMBERS.values())):
        raise ValueError(
            f"diffusers has only square data, one token condition, and the numbers {NUMBERS} or none; the network has "
            f"{rows} x {columns} patches, {list(parts.embedding.tokens)} and {_numbers(model)}"
        )
    dim, side, caption = (
        block.attention.qkv.in_features,
        parts.head.patch_size,
        next(iter(parts.embedding.tokens.values())),
    )
    return {
        "_class_name": NAME,
        "num_attention_heads": block.attention.num_heads,
        "attention_head_dim": dim // block.attention.num_heads,
        "in_channels": parts.patches.in_channels,
        "out_channels": parts.head.linear.out_features // side**2,
        "num_layers": len(parts.blocks),
        "cross_attention_dim": dim,
        "sample_size": rows * side,
        "patch_size": side,
        "norm_eps": block.norm_attention.eps,
        "interpolation_scale": parts.positions.scale,
        "use_additional_conditions": bool(numbers),
        "caption_channels": caption.width,
        "dropout": 0.0,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "attention_type": "default",
    }


def _numbers(model: PixArt) -> dict[str, int]:
    joint = model.embedding.joint
    return {} if joint is None else {name: shape[0] for name, shape in joint.condition_shapes.items()}
