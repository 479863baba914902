"""The keys of U-Nets in the code of CompVis and in diffusers."""

from diffusion_labs.interop.autoencoder_rules import LINEAR
from diffusion_labs.interop.key_rules import UNCHANGED, KeyRule, KeyRules, TensorChange, nested
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


def compvis_unet_rules(*, conv_projections: bool = True) -> KeyRules:
    """Of guided-diffusion, Latent Diffusion and Stable Diffusion, without ``model.diffusion_model.``.

    Args:
        conv_projections: the projections of spatial transformers are written as 1x1 convolutions, as Stable Diffusion
            1 has them, and not as linear layers, as 2 and XL have. Both are read.
    """
    stages = {
        "input_blocks.{i+1}.{j}": "encoder.{i}.{j}",
        "middle_block.{j}": "middle.{j}",
        "output_blocks.{i}.{j}": "decoder.{i}.{j}",
    }
    res_block = [
        KeyRule("in_layers.0.*", "norm_in.*"),
        KeyRule("in_layers.2.*", "conv_in.*"),
        KeyRule("emb_layers.1.*", "norm_out.projection.*"),
        KeyRule("out_layers.0.*", "norm_out.norm.*"),
        KeyRule("out_layers.3.*", "conv_out.*"),
        KeyRule("skip_connection.*", "skip.*"),
    ]
    return KeyRules(
        [
            KeyRule("time_embed.0.*", "embedding.time.linear_in.*"),
            KeyRule("time_embed.2.*", "embedding.time.linear_out.*"),
            KeyRule("label_emb.weight", "embedding.classes.class.table.weight"),
            KeyRule("label_emb.0.0.*", "embedding.joint.linear_in.*"),
            KeyRule("label_emb.0.2.*", "embedding.joint.linear_out.*"),
            KeyRule("input_blocks.0.0.*", "conv_in.*"),
            *nested(stages, res_block),
            *nested(stages, _transformer(CONVOLUTION if conv_projections else LINEAR_TOO)),
            *nested(stages, [KeyRule("qkv.*", "qkv.*")]),
            KeyRule("input_blocks.{i+1}.{j}.op.*", "encoder.{i}.{j}.resample.conv.*"),
            KeyRule("output_blocks.{i}.{j}.conv.*", "decoder.{i}.{j}.resample.conv.*"),
            KeyRule("out.0.*", "head.norm.*"),
            KeyRule("out.2.*", "head.conv.*"),
        ]
    )


def diffusers_unet_rules(model: ADMUNet, *, conv_projections: bool = True) -> KeyRules:
    """Of ``UNet2DConditionModel``, which counts stages within levels, and blocks by their kind.

    Args:
        model: has convolutions for resampling between all of its levels, as ``ldm_unet`` has.
        conv_projections: see ``compvis_unet_rules``.
    """
    num_levels = 1 + sum(key.endswith("resample.conv.weight") for key in model.encoder.state_dict())
    per_level = (len(model.encoder) + 1) // num_levels
    res_blocks = {"mid_block.resnets.0": "middle.0", "mid_block.resnets.1": "middle.2"}
    transformers = {"mid_block.attentions.0": "middle.1"}
    resamplings = {}
    for i, stage in enumerate(model.decoder):
        level, layer = divmod(i, per_level)
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        res_blocks[f"{up}.resnets.{layer}"] = f"decoder.{i}.0"
        transformers[f"{up}.attentions.{layer}"] = f"decoder.{i}.1"
        if layer < per_level - 1:
            res_blocks[f"{down}.resnets.{layer}"] = f"encoder.{i}.0"
            transformers[f"{down}.attentions.{layer}"] = f"encoder.{i}.1"
        elif level < num_levels - 1:
            resamplings[f"{down}.downsamplers.0"] = f"encoder.{i}.0.resample"
            resamplings[f"{up}.upsamplers.0"] = f"decoder.{i}.{len(list(stage.children())) - 1}.resample"
    res_block = [
        KeyRule("norm1.*", "norm_in.*"),
        KeyRule("conv1.*", "conv_in.*"),
        KeyRule("time_emb_proj.*", "norm_out.projection.*"),
        KeyRule("norm2.*", "norm_out.norm.*"),
        KeyRule("conv2.*", "conv_out.*"),
        KeyRule("conv_shortcut.*", "skip.*"),
    ]
    return KeyRules(
        [
            KeyRule("time_embedding.linear_1.*", "embedding.time.linear_in.*"),
            KeyRule("time_embedding.linear_2.*", "embedding.time.linear_out.*"),
            KeyRule("class_embedding.weight", "embedding.classes.class.table.weight"),
            KeyRule("add_embedding.linear_1.*", "embedding.joint.linear_in.*"),
            KeyRule("add_embedding.linear_2.*", "embedding.joint.linear_out.*"),
            KeyRule("conv_in.*", "conv_in.*"),
            *nested(res_blocks, res_block),
            *nested(transformers, _transformer(CONVOLUTION if conv_projections else LINEAR_TOO)),
            *nested(resamplings, [KeyRule("conv.*", "conv.*")]),
            KeyRule("conv_norm_out.*", "head.norm.*"),
            KeyRule("conv_out.*", "head.conv.*"),
        ]
    )
