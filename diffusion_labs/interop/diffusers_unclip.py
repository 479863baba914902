"""The decoder of diffusers' unCLIP, the layout of Karlo: a U-Net, and beside it what embeds its conditions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.interop import diffusers_unet2d_condition as latent
from diffusion_labs.interop.diffusers_models import ModelConfig, find_model, read_config, write_model
from diffusion_labs.interop.diffusers_unet2d import SCALE_SHIFT, mults
from diffusion_labs.interop.diffusers_unet_written import UNetParts, describe_unet, name_of
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, load_foreign
from diffusion_labs.interop.unet_rules import diffusers_unet_rules
from diffusion_labs.interop.weight_files import read_diffusers_weights
from diffusion_labs.models.adm_unet import ADMUNet, adm_unet

# Keys that choose the sizes, with the defaults of the class
SIZES: dict[str, Any] = {
    key: latent.SIZES[key]
    for key in (
        *("in_channels", "out_channels", "block_out_channels", "layers_per_block", "norm_num_groups", "norm_eps"),
        *("down_block_types", "up_block_types", "dropout", "cross_attention_dim", "attention_head_dim"),
        "resnet_time_scale_shift",
    )
} | {"mid_block_type": "UNetMidBlock2DCrossAttn", "class_embed_type": None}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **{key: values for key, values in latent.NEUTRAL.items() if key not in SIZES},
    "num_class_embeds": (None,),
    "addition_embed_type": (None,),
    "addition_time_embed_dim": (None,),
    "projection_class_embeddings_input_dim": (None,),
}
# Of convolutions between the levels and of transformers, of which this kind of network has none
UNREAD = latent.UNREAD | {"downsample_padding", "transformer_layers_per_block"}
TEXT_SIZES: dict[str, Any] = {
    "clip_extra_context_tokens": 4,
    "clip_embeddings_dim": 768,
    "time_embed_dim": None,
    "cross_attention_dim": None,
}

ATTENTION = {
    "down_block_types": {"ResnetDownsampleBlock2D": False, "SimpleCrossAttnDownBlock2D": True},
    "up_block_types": {"ResnetUpsampleBlock2D": False, "SimpleCrossAttnUpBlock2D": True},
}
MIDDLE = {"UNetMidBlock2DSimpleCrossAttn": True}
EMBEDDED = {"identity": True}
PLACES = {"decoder": "UNet2DConditionModel", "text_proj": "UnCLIPTextProjModel"}
NULL = "learned_classifier_free_guidance_embeddings"
IMAGE, TEXT_VECTOR, TEXT = "image_embedding", "text_embedding", "text"


def load_diffusers_unclip_decoder(
    folder: str | Path, *, variant: str | None = None, guidance_scale: float = 8.0
) -> CFGuidance:
    """Read the decoder of an ``UnCLIPPipeline`` or ``UnCLIPImageVariationPipeline`` that diffusers saved.

    Its network takes ``image_embedding`` ``[b, d]``, ``text_embedding`` ``[b, d]`` and ``text`` ``[b, n, d]`` with
    ``text_mask``. Guidance leads away from the learned embedding that is stored beside them, and, as in the pipeline,
    from the encoding of "" if that is given as ``negative_text``, ``negative_text_mask`` and
    ``negative_text_embedding``.

    Args:
        folder: has ``decoder`` and ``text_proj``.
        variant: of the names of the weights, for example ``"fp16"``.
        guidance_scale: see ``CFGuidance``; the pipeline's by default.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.
    """
    folders = {name: find_model(Path(folder) / name, [name]) for name in PLACES}
    configs = {name: read_config(place) for name, place in folders.items()}
    with torch.device("meta"):
        network = from_diffusers_unclip_config(configs["decoder"], configs["text_proj"])
    network.to_empty(device="cpu")
    tensors = read_diffusers_weights(folders["text_proj"], variant)
    null = nn.Parameter(tensors.pop(NULL).to(torch.get_default_dtype()))
    load_foreign(network, {**read_diffusers_weights(folders["decoder"], variant), **tensors}, _rules(network))
    return _guided(network, null, guidance_scale)


def from_diffusers_unclip_config(decoder: Mapping[str, Any], text_proj: Mapping[str, Any]) -> ADMUNet:
    """The network of the configurations of the two parts, with random weights.

    Args:
        decoder: of a ``UNet2DConditionModel`` with ``SimpleCrossAttn`` blocks. It learns the variance if it has twice
            as many channels out as in.
        text_proj: of an ``UnCLIPTextProjModel``.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    for config, name in zip((decoder, text_proj), PLACES.values(), strict=True):
        if config.get("_class_name") != name:
            raise ValueError(f"_class_name={config.get('_class_name')!r} must be {name!r}, as of an unCLIP pipeline")
    sizes, text = ModelConfig(decoder, SIZES, NEUTRAL, UNREAD), ModelConfig(text_proj, TEXT_SIZES, {})
    sizes.number("in_channels", "out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim")
    sizes.number("attention_head_dim")
    sizes.choose("mid_block_type", MIDDLE)
    sizes.choose("class_embed_type", EMBEDDED)
    widths = list(sizes["block_out_channels"])
    attention = {key: sizes.choose_each(key, kinds, len(widths)) for key, kinds in ATTENTION.items()}
    if attention["up_block_types"] != attention["down_block_types"][::-1]:
        raise sizes.refused("up_block_types", "must have attention where down_block_types has, in the opposite order")
    if text["cross_attention_dim"] != sizes["cross_attention_dim"]:
        raise text.refused("cross_attention_dim", f"must be that of the decoder ({sizes['cross_attention_dim']})")
    if text["time_embed_dim"] != 4 * widths[0]:
        raise text.refused("time_embed_dim", f"must be four times the first width of the decoder ({4 * widths[0]})")

    dim, learned = text["clip_embeddings_dim"], sizes["out_channels"] == 2 * sizes["in_channels"]
    return adm_unet(
        in_channels=sizes["in_channels"],
        out_channels=sizes["out_channels"] // (1 + learned),
        model_channels=widths[0],
        channel_mult=mults(widths),
        num_res_blocks=sizes["layers_per_block"],
        attention_levels=[level for level, has in enumerate(attention["down_block_types"]) if has],
        head_channels=sizes["attention_head_dim"],
        attention_order="new",
        scale_shift=sizes.choose("resnet_time_scale_shift", SCALE_SHIFT),
        learned_variance=learned,
        dropout=sizes["dropout"],
        vectors={IMAGE: dim, TEXT_VECTOR: dim},
        vector_tokens={IMAGE: text["clip_extra_context_tokens"]},
        tokens={TEXT: dim},
        token_norm=True,
        context_dim=sizes["cross_attention_dim"],
        num_groups=sizes["norm_num_groups"],
        norm_eps=sizes["norm_eps"],
    )


def save_diffusers_unclip_decoder(model: CFGuidance, folder: str | Path, *, sample_size: int | None = None) -> None:
    """Write the folders ``decoder`` and ``text_proj`` of an unCLIP pipeline.

    Args:
        model: guidance around a network with the conditions of ``load_diffusers_unclip_decoder``. Its null embedding
            is written, zeros if it has none.
        folder: is made.
        sample_size: the side of the images, which the pipeline reads.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    network: Any = getattr(model, "model", model)
    shapes = getattr(network, "condition_shapes", {})
    if set(shapes) != {IMAGE, TEXT_VECTOR, TEXT} or IMAGE not in network.embedding.vector_tokens:
        raise ValueError(
            f"the decoder of unCLIP takes {IMAGE!r}, also as tokens, {TEXT_VECTOR!r} and {TEXT!r}; this network takes "
            f"{sorted(shapes)}"
        )
    configs = _written(network)
    with torch.device("meta"):
        same = describe_unet(from_diffusers_unclip_config(*configs.values())) == describe_unet(network)
    if not same:
        raise ValueError(
            f"diffusers has no such decoder: sizes, heads, norms or conditions differ from those of {configs}; build "
            "it with residual_resampling=True, token_norm=True and one width of the heads"
        )
    tensors = _rules(network).to_theirs(network.state_dict())
    beside = {rule.theirs.removesuffix(".*") for rule in _condition_rules(network)}
    text_proj = {key: tensors.pop(key) for key in list(tensors) if key.rpartition(".")[0] in beside}
    null: Tensor | None = getattr(model, f"null_{IMAGE}", None)
    width = shapes[IMAGE][0]
    text_proj[NULL] = next(iter(text_proj.values())).new_zeros(width) if null is None else null.expand(width)
    write_model(Path(folder) / "decoder", {**configs["decoder"], "sample_size": sample_size}, tensors)
    write_model(Path(folder) / "text_proj", configs["text_proj"], text_proj)


def _guided(network: ADMUNet, null: Tensor, guidance_scale: float) -> CFGuidance:
    dropout: dict[str | tuple[str, ...], float] = {IMAGE: 0.1, (TEXT, TEXT_VECTOR): 0.5}
    return CFGuidance(network, dropout, null={IMAGE: null}, guidance_scale=guidance_scale)


def _written(network: Any) -> dict[str, dict[str, Any]]:
    parts = UNetParts(network)
    dim, block = network.condition_shapes[IMAGE][0], parts.middle[0]
    shared = parts.shared()
    down, up = ATTENTION["down_block_types"], ATTENTION["up_block_types"]
    decoder = {
        **shared,
        "_class_name": PLACES["decoder"],
        "down_block_types": [name_of(down, bool(blocks)) for blocks in parts.attentions],
        "up_block_types": [name_of(up, bool(blocks)) for blocks in reversed(parts.attentions)],
        "mid_block_type": name_of(MIDDLE, True),
        "class_embed_type": name_of(EMBEDDED, True),
        "attention_head_dim": block.norm.num_channels // block.num_heads,
        "cross_attention_dim": block.context_kv.in_channels,
    }
    text_proj = {
        "_class_name": PLACES["text_proj"],
        "clip_extra_context_tokens": network.embedding.vector_tokens[IMAGE].num_tokens,
        "clip_embeddings_dim": dim,
        "time_embed_dim": network.embedding.time.embed_dim,
        "cross_attention_dim": block.context_kv.in_channels,
    }
    return {"decoder": decoder, "text_proj": text_proj}


def _rules(network: ADMUNet) -> KeyRules:
    return diffusers_unet_rules(network, conditions=_condition_rules(network))


def _condition_rules(network: Any) -> list[KeyRule]:
    """Of the text projection; the values of the tokens of a vector are one after the other there, tokens here."""
    number = network.embedding.vector_tokens[IMAGE].num_tokens
    tokens = TensorChange(
        lambda rows: rows.unflatten(0, (-1, number)).transpose(0, 1).flatten(0, 1),
        lambda rows: rows.unflatten(0, (number, -1)).transpose(0, 1).flatten(0, 1),
    )
    return [
        KeyRule("embedding_proj.*", f"embedding.vectors.{TEXT_VECTOR}.linear.*"),
        KeyRule("clip_image_embeddings_project_to_time_embeddings.*", f"embedding.vectors.{IMAGE}.linear.*"),
        KeyRule("clip_extra_context_tokens_proj.*", f"embedding.vector_tokens.{IMAGE}.linear.*", tokens),
        KeyRule("encoder_hidden_states_proj.*", f"embedding.tokens.{TEXT}.linear.*"),
        KeyRule("text_encoder_hidden_states_norm.*", f"embedding.tokens.{TEXT}.norm.*"),
    ]
