"""The keys of autoencoders in other libraries."""

from torch import Tensor

from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, nested


def _with_positions(weight: Tensor) -> Tensor:
    return weight[:, :, None, None] if weight.dim() == 2 else weight


def _without_positions(weight: Tensor) -> Tensor:
    return weight[:, :, 0, 0] if weight.dim() == 4 else weight


LINEAR = TensorChange(_with_positions, _without_positions)  # there a linear layer [o, i], here a 1x1 convolution

_SAME = {"encoder": "encoder", "decoder": "decoder"}
_SHARED = [
    *nested(_SAME, [KeyRule("conv_in.*", "conv_in.*"), KeyRule("conv_out.*", "head.conv.*")]),
    KeyRule("quant_conv.*", "quant_conv.*"),
    KeyRule("post_quant_conv.*", "post_quant_conv.*"),
    KeyRule("quantize.embedding.weight", "quantizer.codebook"),
]


def compvis_autoencoder_rules(num_levels: int) -> KeyRules:
    """Of the code of taming-transformers, Latent Diffusion and Stable Diffusion, which counts levels by resolution.

    Args:
        num_levels: the number of resolutions.
    """
    last = num_levels - 1
    levels = {
        "encoder.down.{level}": "encoder.levels.{level}",
        "decoder.up.{level}": f"decoder.levels.{{{last}-level}}",
    }
    res_block = [
        KeyRule("norm1.*", "norm_in.*"),
        KeyRule("conv1.*", "conv_in.*"),
        KeyRule("norm2.*", "norm_out.*"),
        KeyRule("conv2.*", "conv_out.*"),
        KeyRule("nin_shortcut.*", "skip.*"),
    ]
    attention = [KeyRule(f"{name}.*", f"{name}.*") for name in ("norm", "q", "k", "v", "proj_out")]
    return KeyRules(
        [
            *_SHARED,
            *nested(_SAME, [KeyRule("norm_out.*", "head.norm.*")]),
            *nested(levels, nested({"block.{i}": "block_{i}"}, res_block)),
            *nested(levels, nested({"attn.{i}": "attention_{i}"}, attention)),
            *nested(_SAME, nested({"mid.block_{i+1}": "middle.block_{i}"}, res_block)),
            *nested(_SAME, nested({"mid.attn_{i+1}": "middle.attention_{i}"}, attention)),
            KeyRule("encoder.down.{level}.downsample.conv.*", "encoder.levels.{level}.resample.conv.*"),
            KeyRule("decoder.up.{level}.upsample.conv.*", f"decoder.levels.{{{last}-level}}.resample.conv.*"),
        ]
    )


def diffusers_autoencoder_rules() -> KeyRules:
    """Of diffusers' ``AutoencoderKL`` and ``VQModel``, which count levels in the order in which they run."""
    levels = {
        "encoder.down_blocks.{level}": "encoder.levels.{level}",
        "decoder.up_blocks.{level}": "decoder.levels.{level}",
        "encoder.mid_block": "encoder.middle",
        "decoder.mid_block": "decoder.middle",
    }
    res_block = [
        KeyRule("norm1.*", "norm_in.*"),
        KeyRule("conv1.*", "conv_in.*"),
        KeyRule("norm2.*", "norm_out.*"),
        KeyRule("conv2.*", "conv_out.*"),
        KeyRule("conv_shortcut.*", "skip.*"),
    ]
    attention = [
        KeyRule("group_norm.*", "norm.*"),
        KeyRule("to_q.*", "q.*", LINEAR),
        KeyRule("to_k.*", "k.*", LINEAR),
        KeyRule("to_v.*", "v.*", LINEAR),
        KeyRule("to_out.0.*", "proj_out.*", LINEAR),
    ]
    of_2022 = [
        KeyRule("query.*", "to_q.*"),
        KeyRule("key.*", "to_k.*"),
        KeyRule("value.*", "to_v.*"),
        KeyRule("proj_attn.*", "to_out.0.*"),
    ]
    return KeyRules(
        [
            *_SHARED,
            *nested(_SAME, [KeyRule("conv_norm_out.*", "head.norm.*")]),
            *nested(levels, nested({"resnets.{i}": "block_{i}"}, res_block)),
            *nested(levels, nested({"attentions.{i}": "attention_{i}"}, attention)),
            KeyRule("encoder.down_blocks.{level}.downsamplers.0.conv.*", "encoder.levels.{level}.resample.conv.*"),
            KeyRule("decoder.up_blocks.{level}.upsamplers.0.conv.*", "decoder.levels.{level}.resample.conv.*"),
        ],
        older=nested({f"{place}.attentions.{{i}}": f"{place}.attentions.{{i}}" for place in levels}, of_2022),
    )
