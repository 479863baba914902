"""The keys of U-Nets in the code of CompVis and in diffusers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.interop.autoencoder_rules import LINEAR
from diffusion_labs.interop.key_rules import UNCHANGED, KeyRule, KeyRules, TensorChange, nested
from diffusion_labs.layers import entry_name
from diffusion_labs.models.adm_unet import ADMUNet

# There a 1x1 convolution and here a linear layer; or the same there, and a convolution is read all the same
CONVOLUTION = TensorChange(LINEAR.to_theirs, LINEAR.to_ours)
LINEAR_TOO = CONVOLUTION._replace(to_theirs=UNCHANGED.to_theirs)


def _transformer(projection: TensorChange) -> list[KeyRule]:
    attention = [
        KeyRule("to_q.*", "query.*"),
        KeyRule("to_k.*", "key.*"),
        KeyRule("to_v.*", "value.*"),
        KeyRule("to_out.0.*", "out.*"),
    ]
    block = [
        KeyRule("norm1.*", "norm_self.*"),
        KeyRule("norm2.*", "norm_cross.*"),
        KeyRule("norm3.*", "norm_feed_forward.*"),
        *nested({"attn1": "self_attention", "attn2": "cross_attention"}, attention),
        KeyRule("ff.net.0.proj.*", "feed_forward.linear_in.*"),
        KeyRule("ff.net.2.*", "feed_forward.linear_out.*"),
    ]
    return [
        KeyRule("norm.*", "norm.*"),
        KeyRule("proj_in.*", "proj_in.*", projection),
        KeyRule("proj_out.*", "proj_out.*", projection),
        *nested({"transformer_blocks.{k}": "blocks.{k}"}, block),
    ]


_RES_BLOCK = [
    KeyRule("in_layers.0.*", "norm_in.*"),
    KeyRule("in_layers.2.*", "conv_in.*"),
    KeyRule("emb_layers.1.*", "norm_out.projection.*"),
    KeyRule("out_layers.0.*", "norm_out.norm.*"),
    KeyRule("out_layers.3.*", "conv_out.*"),
    KeyRule("skip_connection.*", "skip.*"),
]
_ENCODER = {"input_blocks.{i+1}.{j}": "encoder.{i}.{j}", "middle_block.{j}": "middle.{j}"}
# Of tables of classes: there they have no row for no class, which is zeros here
WITHOUT_NULL = TensorChange(
    lambda table: torch.cat([table, table.new_zeros(1, table.shape[1])]), lambda table: table[:-1]
)


def compvis_unet_rules(*, conv_projections: bool = True, null_class: bool = True) -> KeyRules:
    """Of guided-diffusion, Latent Diffusion and Stable Diffusion, without ``model.diffusion_model.``.

    Args:
        conv_projections: the projections of spatial transformers are written as 1x1 convolutions, as Stable Diffusion
            1 has them, and not as linear layers, as 2 and XL have. Both are read.
        null_class: the last class there is the null class here. Otherwise there is none there: it becomes zeros.
    """
    stages = {**_ENCODER, "output_blocks.{i}.{j}": "decoder.{i}.{j}"}
    classes = UNCHANGED if null_class else WITHOUT_NULL
    return KeyRules(
        [
            KeyRule("time_embed.0.*", "embedding.time.linear_in.*"),
            KeyRule("time_embed.2.*", "embedding.time.linear_out.*"),
            KeyRule("label_emb.weight", "embedding.classes.class_.table.weight", classes),
            KeyRule("label_emb.0.0.*", "embedding.joint.linear_in.*"),
            KeyRule("label_emb.0.2.*", "embedding.joint.linear_out.*"),
            KeyRule("input_blocks.0.0.*", "conv_in.*"),
            *nested(stages, _RES_BLOCK),
            *nested(stages, _transformer(CONVOLUTION if conv_projections else LINEAR_TOO)),
            *nested(stages, [KeyRule("qkv.*", "qkv.*")]),
            KeyRule("input_blocks.{i+1}.{j}.op.*", "encoder.{i}.{j}.resample.conv.*"),
            KeyRule("output_blocks.{i}.{j}.conv.*", "decoder.{i}.{j}.resample.conv.*"),
            KeyRule("out.0.*", "head.norm.*"),
            KeyRule("out.2.*", "head.conv.*"),
        ]
    )


def guided_classifier_rules() -> KeyRules:
    """Of the classifier of guided-diffusion."""
    attention = [KeyRule(f"{name}.*", f"{name}.*") for name in ("norm", "qkv", "proj_out")]
    return KeyRules(
        [
            KeyRule("time_embed.0.*", "time.linear_in.*"),
            KeyRule("time_embed.2.*", "time.linear_out.*"),
            KeyRule("input_blocks.0.0.*", "conv_in.*"),
            *nested(_ENCODER, [*_RES_BLOCK, *attention]),
            KeyRule("input_blocks.{i+1}.{j}.op.*", "encoder.{i}.{j}.resample.conv.*"),
            KeyRule("out.0.*", "norm.*"),
            KeyRule("out.2.positional_embedding", "pool.positions"),
            KeyRule("out.2.qkv_proj.*", "pool.qkv.*"),
            KeyRule("out.2.c_proj.*", "pool.out.*"),
        ]
    )


def diffusers_unet_rules(
    model: ADMUNet,
    *,
    conv_projections: bool = True,
    cosines_first: bool = True,
    conditions: Sequence[KeyRule] = (),
) -> KeyRules:
    """Of ``UNet2DModel`` and ``UNet2DConditionModel``, which count stages within levels, and blocks by their kind.

    Args:
        model: resamples between all of its levels.
        conv_projections: see ``compvis_unet_rules``.
        cosines_first: in the sinusoids of the time there, as here: ``flip_sin_to_cos`` in their configuration.
        conditions: further rules, of what embeds the conditions.
    """
    per_level = max(1, (len(model.encoder) + 1) // model.size_multiple.bit_length())
    res_blocks = {"mid_block.resnets.0": "middle.0", "mid_block.resnets.1": "middle.2"}
    if len(model.middle) < 3:
        res_blocks["mid_block.resnets.1"] = "middle.1"
    attentions = {"mid_block.attentions.0": "middle.1"}
    resamplings = {}
    for i, stage in enumerate(model.decoder):
        level, layer = divmod(i, per_level)
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        res_blocks[f"{up}.resnets.{layer}"] = f"decoder.{i}.0"
        attentions[f"{up}.attentions.{layer}"] = f"decoder.{i}.1"
        if layer < per_level - 1:
            res_blocks[f"{down}.resnets.{layer}"] = f"encoder.{i}.0"
            attentions[f"{down}.attentions.{layer}"] = f"encoder.{i}.1"
        elif i < len(model.encoder):
            resamplings[f"{down}.downsamplers.0"] = f"encoder.{i}.0"
            resamplings[f"{up}.upsamplers.0"] = f"decoder.{i}.{len(list(stage.children())) - 1}"
    res_block = [
        KeyRule("norm1.*", "norm_in.*"),
        KeyRule("conv1.*", "conv_in.*"),
        KeyRule("time_emb_proj.*", "norm_out.projection.*"),
        KeyRule("norm2.*", "norm_out.norm.*"),
        KeyRule("conv2.*", "conv_out.*"),
        KeyRule("conv_shortcut.*", "skip.*"),
    ]
    parts, classes = dict(model.named_modules()), list(model.null_conditions)[:1]
    vectors = "add_embedding" if getattr(parts.get("embedding.joint"), "numbers", True) else "class_embedding"
    joint = {theirs: ours for theirs, ours in attentions.items() if hasattr(parts.get(ours), "qkv")}
    transformers = {theirs: ours for theirs, ours in attentions.items() if hasattr(parts.get(ours), "proj_in")}
    return KeyRules(
        [
            KeyRule("time_embedding.linear_1.weight", "embedding.time.linear_in.weight", _ORDER[cosines_first]),
            KeyRule("time_embedding.linear_1.bias", "embedding.time.linear_in.bias"),
            KeyRule("time_embedding.linear_2.*", "embedding.time.linear_out.*"),
            *[
                KeyRule("class_embedding.weight", f"embedding.classes.{entry_name(name)}.table.weight")
                for name in classes
            ],
            KeyRule(f"{vectors}.linear_1.*", "embedding.joint.linear_in.*"),
            KeyRule(f"{vectors}.linear_2.*", "embedding.joint.linear_out.*"),
            KeyRule("conv_in.*", "conv_in.*"),
            *nested(res_blocks, res_block),
            *nested(transformers, _transformer(CONVOLUTION if conv_projections else LINEAR_TOO)),
            *[
                rule
                for theirs, ours in joint.items()
                for rule in nested(
                    {theirs: ours},
                    joint_attention(
                        parts[ours],
                        "to_q,to_k,to_v",
                        "to_out.0",
                        norm="group_norm",
                        context="add_k_proj,add_v_proj" if hasattr(parts[ours], "context_kv") else None,
                    ),
                )
            ],
            *nested(resamplings, [KeyRule("conv.*", "resample.conv.*"), *res_block]),
            KeyRule("conv_norm_out.*", "head.norm.*"),
            KeyRule("conv_out.*", "head.conv.*"),
            *conditions,
        ],
        joined=[("to_q", "to_k", "to_v"), ("add_k_proj", "add_v_proj")] if joint else [],
        older=nested(
            {theirs: theirs for theirs in joint},
            [KeyRule(f"{old}.*", f"{new}.*") for old, new in _OF_2022.items()],
        ),
    )


_OF_2022 = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _swapped_halves(weight: Tensor) -> Tensor:
    return weight.roll(weight.shape[1] // 2, 1)


SINES_FIRST = TensorChange(_swapped_halves, _swapped_halves)  # of the sinusoids there; here the cosines are
_ORDER = {True: UNCHANGED, False: SINES_FIRST}


def joint_attention(block: Any, projections: str, out: str, *, norm: str, context: str | None = None) -> list[KeyRule]:
    """Of an ``AttentionBlock``: one projection here, with the heads in its own order, and three linear layers there.

    Args:
        block: the block.
        projections: the names of q, k and v there, as ``KeyRules`` joins them.
        out: the name of the last layer there.
        norm: the name of the norm there.
        context: the names of k and v of the context there; ``None`` if they have other rules.
    """

    def order(parts: int) -> Tensor:
        """Row ``order[i]`` here is row i there: all of q, then k, then v, each by heads."""
        rows = torch.arange(float(parts * block.norm.num_channels), device="cpu").reshape(1, 1, -1)
        return torch.cat([part.flatten() for part in block.split_heads(rows, block.num_heads, parts)]).long()

    def reordered(parts: int) -> TensorChange:
        return TensorChange(
            lambda rows: _as_convolution(rows)[order(parts).argsort()], lambda rows: _as_linear(rows)[order(parts)]
        )

    rules = [
        KeyRule(f"{norm}.*", "norm.*"),
        KeyRule(f"{projections}.*", "qkv.*", reordered(3)),
        KeyRule(f"{out}.*", "proj_out.*", LINEAR_1D),
    ]
    return [*rules, KeyRule(f"{context}.*", "context_kv.*", reordered(2))] if context else rules


def _as_convolution(weight: Tensor) -> Tensor:
    return weight[:, :, None] if weight.dim() == 2 else weight


def _as_linear(weight: Tensor) -> Tensor:
    return weight.flatten(1) if weight.dim() > 1 else weight


LINEAR_1D = TensorChange(_as_convolution, _as_linear)  # there a linear layer [o, i], here a convolution over tokens
