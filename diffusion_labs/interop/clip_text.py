"""CLIP's text encoders, in the checkpoints of Stable Diffusion and in transformers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffusion_labs.interop.key_rules import KeyRule, KeyRules, Mismatch, load_foreign, nested

MARK = "embeddings.token_embedding.weight"  # a key of every CLIPTextModel, after a prefix that depends on the version
_FUSED = ("in_proj_weight", "in_proj_bias")  # of q, k and v, one above the other


def transformers_rules(prefix: str) -> KeyRules:
    """Between the names of ``CLIPTextModel`` with ``text_model.``, as in files up to transformers 4, and a module's.

    Args:
        prefix: before the module's keys.
    """
    layer = "text_model.encoder.layers.{i}"
    ours = f"{prefix}encoder.layers.{{i}}"
    return KeyRules(
        [
            KeyRule("text_model.embeddings.*.*", f"{prefix}embeddings.*.*"),
            KeyRule("text_model.final_layer_norm.*", f"{prefix}final_layer_norm.*"),
            KeyRule(f"{layer}.*.*", f"{ours}.*.*"),
            KeyRule(f"{layer}.*.*.*", f"{ours}.*.*.*"),
        ],
        ignored=["text_model.embeddings.position_ids"],  # 0, 1, 2, ...
    )


def open_clip_rules(prefix: str) -> KeyRules:
    """Between the names of OpenCLIP's text encoder, with q, k and v apart, and those of a ``CLIPTextModel``.

    Args:
        prefix: before the module's keys.
    """
    block = [
        KeyRule("ln_1.*", "layer_norm1.*"),
        KeyRule("ln_2.*", "layer_norm2.*"),
        KeyRule("attn.*.*", "self_attn.*.*"),
        KeyRule("mlp.c_fc.*", "mlp.fc1.*"),
        KeyRule("mlp.c_proj.*", "mlp.fc2.*"),
    ]
    return KeyRules(
        [
            KeyRule("token_embedding.weight", f"{prefix}embeddings.token_embedding.weight"),
            KeyRule("positional_embedding", f"{prefix}embeddings.position_embedding.weight"),
            KeyRule("ln_final.*", f"{prefix}final_layer_norm.*"),
            *nested({"transformer.resblocks.{i}": f"{prefix}encoder.layers.{{i}}"}, block),
        ],
        ignored=["text_projection", "logit_scale", "attn_mask"],  # of the contrast with images, and the causal mask
    )


def load_clip_text(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> Mismatch:
    """Load a text encoder, of transformers' names with ``text_model.`` or without, or of OpenCLIP's.

    OpenCLIP's encoder in Stable Diffusion 2 has one layer more than is used: its last is left out where the module has
    one layer less.

    Args:
        module: a ``CLIPTextModel`` of transformers, or a module around one.
        tensors: the weights.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys.
    """
    prefix = _prefix(module)
    if "positional_embedding" in tensors:
        return load_foreign(
            module, _without_last(_apart(tensors), module, prefix), open_clip_rules(prefix), strict=strict
        )
    named = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in tensors.items()}
    return load_foreign(module, named, transformers_rules(prefix), strict=strict)


def to_clip_text(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a text encoder by the names of ``CLIPTextModel`` with ``text_model.``."""
    return transformers_rules(_prefix(module)).to_theirs(module.state_dict())


def to_open_clip_text(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a text encoder by the names of OpenCLIP, with q, k and v in one tensor."""
    tensors = open_clip_rules(_prefix(module)).to_theirs(module.state_dict())
    for key in [key for key in tensors if ".attn.q_proj." in key]:
        parts = [tensors.pop(key.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        tensors[key.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return tensors


def _prefix(module: nn.Module) -> str:
    found = [key.removesuffix(MARK) for key in module.state_dict() if key.endswith(MARK)]
    if len(found) != 1:
        raise ValueError(
            f"a {type(module).__name__} has no {MARK}, or several, so it is no text encoder of CLIP; give a "
            "CLIPTextModel of transformers, or a CLIPTextEncoder"
        )
    return found[0]


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those of q, k and v apart."""
    apart = {}
    for key, value in tensors.items():
        place, _, name = key.rpartition(".")
        if name in _FUSED:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                apart[f"{place}.{letter}_proj.{name.removeprefix('in_proj_')}"] = part
        else:
            apart[key] = value
    return apart


def _without_last(tensors: Mapping[str, Tensor], module: nn.Module, prefix: str) -> dict[str, Tensor]:
    theirs = 1 + max(int(key.split(".")[2]) for key in tensors if key.startswith("transformer.resblocks."))
    layers = {key.removeprefix(f"{prefix}encoder.layers.").split(".")[0] for key in module.state_dict()}
    ours = sum(layer.isdecimal() for layer in layers)
    last = f"transformer.resblocks.{theirs - 1}."
    return {key: value for key, value in tensors.items() if ours != theirs - 1 or not key.startswith(last)}
