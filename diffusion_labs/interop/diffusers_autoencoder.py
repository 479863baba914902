"""Autoencoders in the folders of diffusers, without diffusers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from diffusion_labs.construction import annotate, notes_of
from diffusion_labs.interop.autoencoder_rules import diffusers_autoencoder_rules
from diffusion_labs.interop.diffusers_models import NOTES, find_model, read_config, write_model
from diffusion_labs.interop.key_rules import load_foreign
from diffusion_labs.interop.weight_files import read_diffusers_weights
from diffusion_labs.layers import GroupNorm
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel, autoencoder_kl, vq_model
from diffusion_labs.models.autoencoder.autoencoder import Autoencoder

FOLDERS = ("vae", "vqvae", "movq")

# Keys about the use of the latents, which the network does not know, with the defaults of the classes
USAGE: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {
        "sample_size": 32,
        "scaling_factor": 0.18215,
        "shift_factor": None,
        "latents_mean": None,
        "latents_std": None,
        "force_upcast": True,
    },
    "VQModel": {"sample_size": 32, "scaling_factor": 0.18215, "lookup_from_codebook": False, "force_upcast": False},
}
_SIZES: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "mid_block_add_attention": True,
}
SIZES: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {**_SIZES, "latent_channels": 4, "use_quant_conv": True, "use_post_quant_conv": True},
    "VQModel": {**_SIZES, "latent_channels": 3, "num_vq_embeddings": 256, "vq_embed_dim": None, "norm_type": "group"},
}
_ATTENTION = {
    "down_block_types": {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True},
    "up_block_types": {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True},
}


class DiffusersAutoencoder(NamedTuple):
    """A network, and what its folder says about the use of its latents.

    Attributes:
        model: the network, in float32, or torch's default dtype.
        usage: all keys of ``USAGE``, for example ``scaling_factor``, by which latents are multiplied for diffusion.
            They are noted on the model, too, so that they are kept by ``save_pretrained`` and written back.
    """

    model: Autoencoder
    usage: dict[str, Any]


def load_diffusers_autoencoder(folder: str | Path, *, variant: str | None = None) -> DiffusersAutoencoder:
    """Read an ``AutoencoderKL`` or ``VQModel`` that diffusers saved. It need not be installed.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``vae``, ``vqvae`` or ``movq``: safetensors or
            pickles, whole or in parts.
        variant: of the names of the weights, for example ``"fp16"``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.

    Example:
        >>> model, usage = load_diffusers_autoencoder("stable-diffusion-v1-5")
        >>> z = usage["scaling_factor"] * model.encode(images).sample()
    """
    folder = find_model(folder, FOLDERS)
    with torch.device("meta"):
        model, usage = from_diffusers_autoencoder_config(read_config(folder))
    model.to_empty(device="cpu")
    load_foreign(model, read_diffusers_weights(folder, variant), diffusers_autoencoder_rules())
    return DiffusersAutoencoder(model, usage)


def from_diffusers_autoencoder_config(config: Mapping[str, Any]) -> DiffusersAutoencoder:
    """The autoencoder of a ``config.json`` of diffusers, with random weights.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    name = config.get("_class_name")
    if name not in SIZES:
        raise ValueError(f"_class_name={name!r} is not an autoencoder of diffusers that is known here: {list(SIZES)}")

    def refused(key: str, why: str) -> ValueError:
        return ValueError(f"{name}: {key}={sizes.get(key, config.get(key))!r} {why}")

    sizes, usage = dict(SIZES[name]), dict(USAGE[name])
    for key, value in config.items():
        if key in sizes:
            sizes[key] = value
        elif key in usage:
            usage[key] = value
        elif key not in NOTES:
            raise refused(key, "is not known; remove it, if it means nothing")

    channels = list(sizes["block_out_channels"])
    attention = {}
    for key, kinds in _ATTENTION.items():
        if any(kind not in kinds for kind in sizes[key]):
            raise refused(key, f"cannot be represented; it must hold {list(kinds)}")
        if len(sizes[key]) != len(channels):
            raise refused(key, f"must have {len(channels)} entries, as block_out_channels has")
        attention[key] = [kinds[kind] for kind in sizes[key]]
    if attention["up_block_types"] != attention["down_block_types"][::-1]:
        raise refused("up_block_types", "must have attention where down_block_types has, in the opposite order")
    if sizes["act_fn"] not in ("silu", "swish"):
        raise refused("act_fn", "cannot be represented; it must be 'silu'")
    if sizes.get("norm_type", "group") != "group":
        raise refused("norm_type", "cannot be represented; it must be 'group'")
    if sizes.get("use_quant_conv") != sizes.get("use_post_quant_conv"):
        raise refused("use_post_quant_conv", "must be as use_quant_conv")

    common = {
        "in_channels": sizes["in_channels"],
        "out_channels": sizes["out_channels"],
        "channels": channels,
        "num_res_blocks": sizes["layers_per_block"],
        "attention_levels": [level for level, has in enumerate(attention["down_block_types"]) if has],
        "middle_attention": sizes["mid_block_add_attention"],
        "num_groups": sizes["norm_num_groups"],
    }
    model: Autoencoder
    if name == "AutoencoderKL":
        latent = {"latent_channels": sizes["latent_channels"], "quant_conv": sizes["use_quant_conv"]}
        model = autoencoder_kl(**common, **latent)
    else:
        codes = sizes["latent_channels"] if sizes["vq_embed_dim"] is None else sizes["vq_embed_dim"]
        latent = {"latent_channels": codes, "encoder_channels": sizes["latent_channels"]}
        model = vq_model(**common, **latent, num_codes=sizes["num_vq_embeddings"])
    annotate(model, usage)
    return DiffusersAutoencoder(model, usage)


def save_diffusers_autoencoder(model: Autoencoder, folder: str | Path, usage: Mapping[str, Any] | None = None) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads.

    Args:
        model: an ``AutoencoderKL`` or ``VQModel``, in any dtype.
        folder: is made.
        usage: keys of ``USAGE``, for example ``scaling_factor``; otherwise those that were read with the model, or
            diffusers' defaults.

    Raises:
        ValueError: for a model that diffusers has not, or an unknown key.
    """
    config = to_diffusers_autoencoder_config(model, usage)
    tensors = diffusers_autoencoder_rules().to_theirs(model.state_dict())
    write_model(folder, config, tensors)


def to_diffusers_autoencoder_config(model: Autoencoder, usage: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``config.json`` of diffusers for an autoencoder, found from its parts.

    Raises:
        ValueError: for a model that diffusers has not, or an unknown key of ``usage``.
    """
    name = _CLASSES.get(type(model))
    if name is None:
        raise ValueError(f"a {type(model).__name__} is no class of diffusers; give one of {list(_CLASSES)}")
    unknown = set(usage or {}) - set(USAGE[name])
    if unknown:
        raise ValueError(f"usage has {sorted(unknown)}, but {name} has only {list(USAGE[name])}")

    noted = {key: value for key, value in notes_of(model).items() if key in USAGE[name]}
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    levels = [_named(level, "block") for level in encoder.levels]
    attention = [bool(_named(level, "attention")) for level in encoder.levels]
    config = {
        "_class_name": name,
        **USAGE[name],
        **noted,
        **(usage or {}),
        "in_channels": model.in_channels,
        "out_channels": decoder.head.conv.out_channels,
        "down_block_types": [f"{'Attn' * has}DownEncoderBlock2D" for has in attention],
        "up_block_types": [f"{'Attn' * has}UpDecoderBlock2D" for has in reversed(attention)],
        "block_out_channels": [blocks[0].conv_in.out_channels for blocks in levels],
        "layers_per_block": len(levels[0]),
        "act_fn": "silu",
        "norm_num_groups": encoder.head.norm.num_groups,
        "mid_block_add_attention": bool(_named(encoder.middle, "attention")),
        "latent_channels": decoder.conv_in.in_channels,
        **_LATENTS[name](model),
    }
    with torch.device("meta"):
        twin, _ = from_diffusers_autoencoder_config(config)
    if _description(twin) != _description(model):
        raise ValueError(
            f"diffusers has no such {name}: sizes or norms differ from those of {config}; its autoencoders are "
            "2-dimensional, with eps 1e-6 and the same groups in every norm"
        )
    return config


def _latents_of_kl(model: Any) -> dict[str, Any]:
    has = hasattr(model.quant_conv, "weight")
    return {"use_quant_conv": has, "use_post_quant_conv": has}


def _latents_of_vq(model: Any) -> dict[str, Any]:
    num_codes, code_dim = model.quantizer.codebook.shape
    return {"num_vq_embeddings": num_codes, "vq_embed_dim": code_dim, "norm_type": "group"}


_CLASSES: dict[type, str] = {AutoencoderKL: "AutoencoderKL", VQModel: "VQModel"}
_LATENTS = {"AutoencoderKL": _latents_of_kl, "VQModel": _latents_of_vq}


def _named(blocks: nn.Module, start: str) -> list[Any]:
    return [block for name, block in blocks.named_children() if name.startswith(start)]


def _description(model: Autoencoder) -> tuple[Sequence[Any], Sequence[Any]]:
    """The shapes of the weights, and the settings that have none."""
    shapes = sorted((key, tuple(value.shape)) for key, value in model.state_dict().items())
    norms = [(m.num_groups, m.eps) for m in model.modules() if isinstance(m, GroupNorm)]
    return shapes, norms
