"""``DiTTransformer2DModel`` in the folders of diffusers, without diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion_labs.interop.diffusers_models import ModelConfig, check_class, find_model, read_config, write_model
from diffusion_labs.interop.dit_rules import diffusers_dit_rules, embeddings_agree, refuse_settings
from diffusion_labs.interop.key_rules import load_foreign
from diffusion_labs.interop.weight_files import read_diffusers_weights
from diffusion_labs.layers import sinusoidal_positions
from diffusion_labs.models.transformer import DiT, dit

NAME = "DiTTransformer2DModel"
SIZES: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "sample_size": 32,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "norm_eps": 1e-5,
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dropout": (0.0,),
    "attention_bias": (True,),
    "activation_fn": ("gelu-approximate",),
    "norm_type": ("ada_norm_zero",),
    "norm_elementwise_affine": (False,),
}
UNREAD = frozenset({"norm_num_groups", "upcast_attention"})

_POSITIONS = "pos_embed.pos_embed"  # computed there, stored here
_EMBEDDING = ".norm1.emb."


def load_diffusers_dit(folder: str | Path, *, variant: str | None = None, freq_shift: int = 1) -> DiT:
    """Read a ``DiTTransformer2DModel`` that diffusers saved. It need not be installed.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``transformer``: safetensors or pickles, whole or in
            parts.
        variant: of the names of the weights, for example ``"fp16"``.
        freq_shift: of the sinusoids of the time. diffusers computes with 1. The code that was released with DiT
            computes with 0, so 0 is what weights that were converted from it, such as ``facebook/DiT-XL-2-256``, were
            trained with.

    Returns:
        The network, in torch's default dtype, with the condition ``class``. Twice as many output channels as input
        channels are the prediction and its variance, as in ``DiTPipeline``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.
    """
    folder = find_model(folder, ["transformer"])
    tensors = read_diffusers_weights(folder, variant)
    config = read_config(folder)
    depth = config.get("num_layers", SIZES["num_layers"])
    shared = embeddings_agree(tensors, depth)
    model = from_diffusers_dit_config(config, freq_shift=freq_shift, embedding_per_block=not shared)
    copies = [key for key in tensors if shared and _EMBEDDING in key and not key.startswith("transformer_blocks.0.")]
    own = {key: value for key, value in tensors.items() if key not in copies}
    load_foreign(model, {_POSITIONS: model.positions[None], **own}, diffusers_dit_rules(model))
    return model


def from_diffusers_dit_config(
    given: Mapping[str, Any], *, freq_shift: int = 1, embedding_per_block: bool = False
) -> DiT:
    """The network of a ``config.json`` of diffusers, with random weights.

    Args:
        given: the configuration.
        freq_shift: see ``load_diffusers_dit``.
        embedding_per_block: see ``dit``.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    check_class(given, NAME)
    config = ModelConfig(given, SIZES, NEUTRAL, UNREAD)
    config.number("num_layers", "in_channels", "sample_size", "patch_size", "num_embeds_ada_norm")
    in_channels, out_channels = config["in_channels"], config["out_channels"] or config["in_channels"]
    learned_variance = out_channels == 2 * in_channels
    return dit(
        in_channels=in_channels,
        out_channels=in_channels if learned_variance else out_channels,
        size=config["sample_size"],
        patch_size=config["patch_size"],
        dim=config["num_attention_heads"] * config["attention_head_dim"],
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        learned_variance=learned_variance,
        classes={"class": config["num_embeds_ada_norm"]},
        time_shift=freq_shift,
        feed_forward_eps=config["norm_eps"],
        embedding_per_block=embedding_per_block,
    )


def save_diffusers_dit(model: DiT, folder: str | Path, *, freq_shift: int = 1) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads.

    Args:
        model: from ``dit``, with one class condition, in any dtype.
        folder: is made.
        freq_shift: that of the model. diffusers computes with 1, and a model that was built with another computes
            something else there; giving the other here says that it is known.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    config = to_diffusers_dit_config(model, freq_shift=freq_shift)
    tensors = dict(model.state_dict())
    copies = {
        key.replace("embeddings.0.", f"embeddings.{i}.", 1): value
        for key, value in tensors.items()
        if len(model.embeddings) == 1 and key.startswith("embeddings.0.")
        for i in range(1, len(model.blocks))
    }
    theirs = diffusers_dit_rules(model).to_theirs({**tensors, **copies})
    # safetensors refuses to write the same memory twice
    write_model(folder, config, {key: value.clone() for key, value in theirs.items() if key != _POSITIONS})


def to_diffusers_dit_config(model: DiT, *, freq_shift: int = 1) -> dict[str, Any]:
    """The ``config.json`` of diffusers for a network.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    block: Any = model.blocks[0]
    eps = block.norm_feed_forward.eps
    expected = {"time_shift": freq_shift, "time_scale": 1.0, "norm_eps": 1e-6, "feed_forward_eps": eps}
    refuse_settings(model, expected, "diffusers")
    rows, columns = model.grid
    if rows != columns or len(model.null_conditions) != 1:
        raise ValueError(
            f"diffusers has only square data and one class condition; the network has {rows} x {columns} patches and "
            f"{sorted(model.null_conditions)}"
        )
    dim = block.attention.qkv.in_features
    computed = sinusoidal_positions(rows, columns, dim).to(model.positions)
    if not torch.allclose(model.positions, computed, rtol=0, atol=1e-6):
        raise ValueError("diffusers computes the vectors of the positions, and those of the network are others")
    return {
        "_class_name": NAME,
        "num_attention_heads": block.attention.num_heads,
        "attention_head_dim": dim // block.attention.num_heads,
        "in_channels": model.patches.in_channels,
        "out_channels": model.head.linear.out_features // model.head.patch_size**2,
        "num_layers": len(model.blocks),
        "sample_size": rows * model.head.patch_size,
        "patch_size": model.head.patch_size,
        "num_embeds_ada_norm": next(iter(model.null_conditions.values())),
        "norm_eps": eps,
        "dropout": 0.0,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
    }
