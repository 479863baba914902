"""Weights of the ``diffusion_labs`` of torchmultimodal: its ADM U-Net, DALL-E 2 decoder and autoencoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.interop.key_rules import KeyRule, KeyRules, Mismatch, load_foreign, nested
from diffusion_labs.interop.unet_rules import LINEAR_1D, SINES_FIRST, joint_attention
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.autoencoder import AutoencoderKL

_TIME = "timestep_encoder.1.weight"  # a key that the U-Net has, below the names of what wraps it
_ALPHA, _COLOURS = "decoder.resnet_decoder.alpha_conv_out", "decoder.resnet_decoder.conv_out"


def _res_block(norm_out: str) -> list[KeyRule]:
    return [
        KeyRule("in_block.0.*", "norm_in.*"),
        KeyRule("in_block.3.*", "conv_in.*"),
        KeyRule("out_group_norm.*", f"{norm_out}.*"),
        KeyRule("out_block.2.*", "conv_out.*"),
        KeyRule("skip_block.1.*", "skip.*"),
    ]


def torchmultimodal_unet_rules(model: ADMUNet) -> KeyRules:
    """Of its ``ADMUNet``, in the spelling of its last version; the first had the norm within ``out_block``.

    Args:
        model: from ``adm_unet`` with ``time_shift=1`` and the same conditions.
    """
    stages = {
        "down.{i+1}._module_list.{j}": "encoder.{i}.{j}",
        "bottleneck._module_list.{j}": "middle.{j}",
        "up.{i}._module_list.{j}": "decoder.{i}.{j}",
    }
    res_block = [*_res_block("norm_out.norm"), KeyRule("cond_proj.1.*", "norm_out.projection.*")]
    parts = dict(model.named_modules())
    places = {"bottleneck": "middle"}
    places |= {f"down.{i + 1}": f"encoder.{i}" for i in range(len(model.encoder))}
    places |= {f"up.{i}": f"decoder.{i}" for i in range(len(model.decoder))}
    attentions = {
        f"{theirs}._module_list.{j}": f"{ours}.{j}"
        for theirs, ours in places.items()
        for j, block in parts[ours].named_children()
        if hasattr(block, "qkv")
    }
    attention = {
        theirs: [
            *joint_attention(parts[ours], "attn.query,key,value", "attn.output", norm="norm"),
            KeyRule("attn.attn.cond_proj.*", "context_kv.*", LINEAR_1D),
        ]
        for theirs, ours in attentions.items()
    }
    last = f"up.{len(model.decoder)}._module_list.0"
    older = [KeyRule("out_block.0.*", "out_group_norm.*"), KeyRule("out_block.3.*", "out_block.2.*")]
    return KeyRules(
        [
            KeyRule(_TIME, "embedding.time.linear_in.weight", SINES_FIRST),
            KeyRule("timestep_encoder.1.bias", "embedding.time.linear_in.bias"),
            KeyRule("timestep_encoder.3.*", "embedding.time.linear_out.*"),
            *[
                KeyRule(f"res_cond_proj.{name}.*", f"embedding.vectors.{name}.linear.*")
                for name in model.embedding.vectors
            ],
            *[
                KeyRule(f"attn_cond_proj.{name}.0.*", f"embedding.vector_tokens.{name}.linear.*")
                for name in model.embedding.vector_tokens
            ],
            *[
                KeyRule(f"attn_cond_proj.{name}.*", f"embedding.tokens.{name}.linear.*")
                for name in model.embedding.tokens
            ],
            KeyRule("down.0._module_list.0.*", "conv_in.*"),
            *nested(stages, res_block),
            *[rule for theirs, ours in attentions.items() for rule in nested({theirs: ours}, attention[theirs])],
            KeyRule(f"{last}.0.*", "head.norm.*"),
            KeyRule(f"{last}.2.*", "head.conv.*"),
        ],
        joined=[("query", "key", "value")],
        older=[rule for theirs in stages for rule in nested({theirs: theirs}, older)],
    )


def torchmultimodal_autoencoder_rules(model: AutoencoderKL) -> KeyRules:
    """Of its ``VariationalAutoencoder``, which counts what changes the resolution among the residual blocks.

    Args:
        model: from ``autoencoder_kl`` without attention but in the middle.
    """
    encoder, decoder = "encoder.resnet_encoder", "decoder.resnet_decoder"
    levels: Any = model.encoder.levels
    num_res_blocks = sum(name.startswith("block") for name, _ in levels[0].named_children())
    middle = {f"{encoder}.mid_block": "encoder.middle", f"{decoder}.mid_block": "decoder.middle"}
    blocks = {
        f"{encoder}.down_block.{{level}}.{{i}}": "encoder.levels.{level}.block_{i}",
        f"{decoder}.up_block.{{level}}.{{i}}": "decoder.levels.{level}.block_{i}",
        **{f"{theirs}.{2 * i}": f"{ours}.block_{i}" for theirs, ours in middle.items() for i in (0, 1)},
    }
    attention = [
        KeyRule("net.norm.*", "norm.*"),
        KeyRule("net.attn.query.*", "q.*"),
        KeyRule("net.attn.key.*", "k.*"),
        KeyRule("net.attn.value.*", "v.*"),
        KeyRule("net.out.*", "proj_out.*"),
    ]
    return KeyRules(
        [
            KeyRule(f"{encoder}.init_conv.*", "encoder.conv_in.*"),
            KeyRule(f"{decoder}.init_conv.*", "decoder.conv_in.*"),
            *nested(blocks, _res_block("norm_out")),
            *nested({f"{theirs}.1": f"{ours}.attention_0" for theirs, ours in middle.items()}, attention),
            KeyRule(
                f"{encoder}.down_block.{{level}}.{num_res_blocks}.op.1.*", "encoder.levels.{level}.resample.conv.*"
            ),
            KeyRule(
                f"{decoder}.up_block.{{level}}.{num_res_blocks + 1}.conv.*", "decoder.levels.{level}.resample.conv.*"
            ),
            KeyRule(f"{encoder}.out_block.0.*", "encoder.head.norm.*"),
            KeyRule(f"{encoder}.out_block.2.*", "encoder.head.conv.*"),
            KeyRule(f"{decoder}.out_nonlinearity_block.0.*", "decoder.head.norm.*"),
            KeyRule(f"{_COLOURS}.*", "decoder.head.conv.*"),
            KeyRule("encoder.quant_conv.*", "quant_conv.*"),
            KeyRule("decoder.post_quant_conv.*", "post_quant_conv.*"),
        ]
    )


def load_torchmultimodal_unet(
    model: ADMUNet, weights: Mapping[str, Tensor] | str | Path, *, strict: bool = True
) -> Mismatch:
    """Load its ADM U-Net, by itself or from within samplers and adapters, such as its DALL-E 2 decoder.

    Its sinusoids are those of DDPM, its attention has one head, and a vector enters the embedding, and the context as
    four tokens. For its ``dalle2_decoder()`` the network is ``adm_unet(in_channels=4, model_channels=512,
    channel_mult=(1, 2, 3, 4), num_res_blocks=3, attention_levels=(1, 2, 3), learned_variance=True, dropout=0.1,
    time_shift=1, vectors={"clip_image": 768}, vector_tokens={"clip_image": 4})``.

    Args:
        model: from ``adm_unet``.
        weights: the file, or its tensors. Keys outside of the U-Net, such as those of a schedule, are left out.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys; or a network with other sinusoids.
    """
    _check(model)
    tensors = weights if isinstance(weights, Mapping) else read_weights(Path(weights))
    prefixes = [key.removesuffix(_TIME) for key in tensors if key == _TIME or key.endswith(f".{_TIME}")]
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return load_foreign(model, own, torchmultimodal_unet_rules(model), strict=strict)


def to_torchmultimodal_unet(model: ADMUNet) -> dict[str, Tensor]:
    """The weights of a U-Net by the names of torchmultimodal.

    Raises:
        ValueError: for a network that it has not.
    """
    _check(model)
    return torchmultimodal_unet_rules(model).to_theirs(model.state_dict())


def _check(model: ADMUNet) -> None:
    time: Any = model.embedding.time
    blocks = [block for block in model.modules() if hasattr(block, "qkv")]
    if (time.shift, time.scale) != (1, 1.0) or any(getattr(block, "num_heads", 1) != 1 for block in blocks):
        raise ValueError(
            "torchmultimodal computes with one head, and the sinusoids of DDPM; build the network with num_heads=1, "
            f"time_shift=1 (not {time.shift}) and time_scale=1 (not {time.scale})"
        )


def load_torchmultimodal_autoencoder(
    model: AutoencoderKL, weights: Mapping[str, Tensor] | str | Path, *, strict: bool = True
) -> Mismatch:
    """Load its ``VariationalAutoencoder``; an alpha channel, a layer of its own there, is the last of ``out_channels``.

    Args:
        model: from ``autoencoder_kl``.
        weights: the file, or its tensors.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys.
    """
    tensors = dict(weights if isinstance(weights, Mapping) else read_weights(Path(weights)))
    for kind in ("weight", "bias"):
        if f"{_ALPHA}.{kind}" in tensors and f"{_COLOURS}.{kind}" in tensors:
            alpha = tensors.pop(f"{_ALPHA}.{kind}")
            tensors[f"{_COLOURS}.{kind}"] = torch.cat([tensors[f"{_COLOURS}.{kind}"], alpha])
    return load_foreign(model, tensors, torchmultimodal_autoencoder_rules(model), strict=strict)


def to_torchmultimodal_autoencoder(model: AutoencoderKL, *, alpha: bool = False) -> dict[str, Tensor]:
    """The weights of an autoencoder by the names of torchmultimodal.

    Args:
        model: from ``autoencoder_kl``.
        alpha: the last of its output channels is an alpha channel.

    Raises:
        ValueError: for a network that it has no names for.
    """
    tensors = torchmultimodal_autoencoder_rules(model).to_theirs(model.state_dict())
    for kind in ("weight", "bias"):
        if alpha:
            rows = tensors[f"{_COLOURS}.{kind}"]
            tensors |= {f"{_COLOURS}.{kind}": rows[:-1], f"{_ALPHA}.{kind}": rows[-1:]}
    return tensors
