"""``PriorTransformer`` in the folders of diffusers, without diffusers: the diffusion prior of Karlo and Kandinsky."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_labs.construction import annotate, notes_of
from diffusion_labs.interop.diffusers_models import ModelConfig, check_class, find_model, read_config, write_model
from diffusion_labs.interop.dit_rules import BATCHED
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, load_foreign, nested
from diffusion_labs.interop.weight_files import read_diffusers_weights
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.models.transformer import PriorTransformer, prior_transformer

NAME = "PriorTransformer"
SIZES: dict[str, Any] = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "time_embed_dim": None,
    "embedding_proj_dim": None,
    "clip_embed_dim": None,
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "additional_embeddings": (4,),
    "dropout": (0.0,),
    "time_embed_act_fn": ("silu",),
    "encoder_hid_proj_type": ("linear",),
    "added_emb_type": ("prd",),
}
MOMENTS = ("clip_mean", "clip_std")  # of the embeddings, with the weights
_NORMS = {None: False, "layer": True}

RULES = KeyRules(
    [
        KeyRule("positional_embedding", "positions", BATCHED),
        KeyRule("prd_embedding", "query", TensorChange(lambda value: value[0, 0], lambda value: value[None, None])),
        KeyRule("time_embedding.linear_1.*", "time.linear_in.*"),
        KeyRule("time_embedding.linear_2.*", "time.linear_out.*"),
        KeyRule("proj_in.*", "embed.*"),
        KeyRule("embedding_proj_norm.*", "text_embedding_norm.*"),
        KeyRule("embedding_proj.*", "text_embedding.*"),
        KeyRule("encoder_hidden_states_proj.*", "text.*"),
        KeyRule("norm_in.*", "norm_in.*"),
        *nested(
            {"transformer_blocks.{i}": "blocks.{i}"},
            [
                KeyRule("norm1.*", "norm_attention.*"),
                KeyRule("attn1.to_q,to_k,to_v.*", "attention.qkv.*"),
                KeyRule("attn1.to_out.0.*", "attention.out.*"),
                KeyRule("norm3.*", "norm_feed_forward.*"),
                KeyRule("ff.net.0.proj.*", "feed_forward.linear_in.*"),
                KeyRule("ff.net.2.*", "feed_forward.linear_out.*"),
            ],
        ),
        KeyRule("norm_out.*", "head.0.*"),
        KeyRule("proj_to_clip_embeddings.*", "head.1.*"),
    ],
    joined=[("to_q", "to_k", "to_v")],
)


class DiffusersPrior(NamedTuple):
    """A network, and the scale of the embeddings that it was trained on.

    Attributes:
        model: the network.
        scale: subtracts ``clip_mean`` and divides by ``clip_std``. As diffusers begins with zeros for both, zeros mean
            that they were never set, and the scale leaves embeddings as they are.
    """

    model: PriorTransformer
    scale: LatentScale


def load_diffusers_prior(folder: str | Path, *, variant: str | None = None) -> DiffusersPrior:
    """Read a ``PriorTransformer`` that diffusers saved. It need not be installed.

    The network computes what diffusers does with an ``attention_mask``, our ``text_mask``: without one, diffusers
    leaves out the causal mask, too.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``prior``: safetensors or pickles, whole or in parts.
        variant: of the names of the weights, for example ``"fp16"``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.

    Example:
        >>> network, scale = load_diffusers_prior("karlo-v1-alpha")
        >>> prior = dalle2_prior(network, scale=scale, clamp=StaticClamp(-5, 5), finish=unchanged)
    """
    folder = find_model(folder, ["prior"])
    tensors = read_diffusers_weights(folder, variant)
    model = from_diffusers_prior_config(read_config(folder))
    mean, std = (tensors.pop(name, None) for name in MOMENTS)
    load_foreign(model, tensors, RULES)
    if mean is None or std is None or not bool(std.any()):
        return DiffusersPrior(model, LatentScale())
    annotate(model, dict(zip(MOMENTS, (mean[0].tolist(), std[0].tolist()), strict=True)))
    return DiffusersPrior(model, _scale(mean, std))


def from_diffusers_prior_config(given: Mapping[str, Any]) -> PriorTransformer:
    """The network of a ``config.json`` of diffusers, with random weights.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    check_class(given, NAME)
    config = ModelConfig(given, SIZES, NEUTRAL)
    embed_dim = config["embedding_dim"]
    if config["clip_embed_dim"] not in (None, embed_dim):
        raise config.refused("clip_embed_dim", f"cannot be represented; it must be embedding_dim={embed_dim}, or None")
    return prior_transformer(
        embed_dim=embed_dim,
        text_embed_dim=config["embedding_proj_dim"],
        max_tokens=config["num_embeddings"],
        dim=config["num_attention_heads"] * config["attention_head_dim"],
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        time_dim=config["time_embed_dim"],
        norm_in=config.choose("norm_in_type", _NORMS),
        norm_text_embedding=config.choose("embedding_proj_norm_type", _NORMS),
    )


def save_diffusers_prior(model: PriorTransformer, folder: str | Path, *, scale: LatentScale | None = None) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads.

    Args:
        model: from ``prior_transformer``, in any dtype.
        folder: is made.
        scale: of the embeddings, written as ``clip_mean`` and ``clip_std``; that which the network was read with if
            ``None``, or 0 and 1.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    config = to_diffusers_prior_config(model)
    shift, factor = (0.0, 1.0) if scale is None else (scale.shift.double().cpu(), scale.scale.double().cpu())
    moments: dict[str, Any] = dict(zip(MOMENTS, (shift, 1 / factor), strict=True))
    if scale is None:
        moments |= {name: value for name, value in notes_of(model).items() if name in MOMENTS}
    like = torch.zeros(1, model.embed.in_features, dtype=torch.float64)
    rows = {
        name: (like + torch.as_tensor(value, dtype=like.dtype)).to(model.query.dtype) for name, value in moments.items()
    }
    write_model(folder, config, {**RULES.to_theirs(model.state_dict()), **rows})


def to_diffusers_prior_config(model: PriorTransformer) -> dict[str, Any]:
    """The ``config.json`` of diffusers for a network.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    block: Any = model.blocks[0]
    dim, embed_dim, num_heads = model.query.shape[0], model.embed.in_features, block.attention.num_heads
    if model.text.in_features != embed_dim:
        raise ValueError(
            f"diffusers has one width for the tokens of the text and the embeddings of images; the network has "
            f"{model.text.in_features} and {embed_dim}"
        )
    return {
        "_class_name": NAME,
        "num_attention_heads": num_heads,
        "attention_head_dim": dim // num_heads,
        "num_layers": len(model.blocks),
        "embedding_dim": embed_dim,
        "num_embeddings": model.max_tokens,
        "norm_in_type": _norm(model.norm_in),
        "embedding_proj_norm_type": _norm(model.text_embedding_norm),
        "time_embed_dim": model.time.linear_in.out_features,
        "embedding_proj_dim": model.text_embedding.in_features,
        "clip_embed_dim": embed_dim,
        **{key: values[0] for key, values in NEUTRAL.items()},
    }


def _norm(module: nn.Module) -> str | None:
    return "layer" if list(module.parameters()) else None


def _scale(mean: Tensor, std: Tensor) -> LatentScale:
    """The scale ``(z - mean) / std``."""
    if not bool(((std != 0) & std.isfinite()).all()):
        raise ValueError("clip_std has values that are zero or not finite, by which embeddings cannot be divided")
    scale = LatentScale()
    moments = {"shift": mean[0].double(), "scale": 1 / std[0].double()}
    scale.load_state_dict({name: value.float() for name, value in moments.items()})
    return scale
