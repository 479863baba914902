"""The text encoder of Latent Diffusion, in its checkpoints and in folders of diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffusion_labs.interop.diffusers_models import read_config, write_model
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, Mismatch, load_foreign, nested
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.encoders import LDMTextEncoder

CLASS = "LDMBertModel"
# The sizes in the configuration of diffusers, and ours
SIZES = {
    "d_model": "width",
    "encoder_layers": "depth",
    "encoder_attention_heads": "num_heads",
    "head_dim": "head_dim",
    "vocab_size": "num_tokens",
    "max_position_embeddings": "max_length",
}
# Other keys that change what the model computes, with the values that they have to have
FIXED: dict[str, Any] = {"activation_function": "gelu", "scale_embedding": False}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Of the training of a language model, which this one is not
_LOGITS = "to_logits.*"


def compvis_rules() -> KeyRules:
    """Of Latent Diffusion, without ``cond_stage_model.transformer.``: even layers are attention, odd ones not."""
    attention = [
        KeyRule("0.*", "norm_attention.*"),
        KeyRule("1.to_q.*", "attention.query.*"),
        KeyRule("1.to_k.*", "attention.key.*"),
        KeyRule("1.to_v.*", "attention.value.*"),
        KeyRule("1.to_out.*", "attention.out.*"),
    ]
    feed_forward = [
        KeyRule("0.*", "norm_feed_forward.*"),
        KeyRule("1.net.0.0.*", "feed_forward.linear_in.*"),
        KeyRule("1.net.2.*", "feed_forward.linear_out.*"),
    ]
    return KeyRules(
        [
            KeyRule("token_emb.weight", "tokens.weight"),
            KeyRule("pos_emb.emb.weight", "positions"),
            *nested({"attn_layers.layers.{2*i}": "blocks.{i}"}, attention),
            *nested({"attn_layers.layers.{2*i+1}": "blocks.{i}"}, feed_forward),
            KeyRule("norm.*", "norm.*"),
        ],
        ignored=[_LOGITS],
    )


def diffusers_rules() -> KeyRules:
    """Of diffusers' ``LDMBertModel``."""
    layer = [
        KeyRule("self_attn_layer_norm.*", "norm_attention.*"),
        KeyRule("self_attn.q_proj.*", "attention.query.*"),
        KeyRule("self_attn.k_proj.*", "attention.key.*"),
        KeyRule("self_attn.v_proj.*", "attention.value.*"),
        KeyRule("self_attn.out_proj.*", "attention.out.*"),
        KeyRule("final_layer_norm.*", "norm_feed_forward.*"),
        KeyRule("fc1.*", "feed_forward.linear_in.*"),
        KeyRule("fc2.*", "feed_forward.linear_out.*"),
    ]
    return KeyRules(
        [
            KeyRule("model.embed_tokens.weight", "tokens.weight"),
            KeyRule("model.embed_positions.weight", "positions"),
            *nested({"model.layers.{i}": "blocks.{i}"}, layer),
            KeyRule("model.layer_norm.*", "norm.*"),
        ],
        ignored=[_LOGITS],
    )


def load_ldm_text(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> Mismatch:
    """Load a text encoder of Latent Diffusion, by its names below ``cond_stage_model.transformer.``.

    Args:
        module: an ``LDMTextEncoder`` of the sizes of the weights.
        tensors: the weights.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys.
    """
    return load_foreign(module, tensors, compvis_rules(), strict=strict)


def to_ldm_text(module: nn.Module) -> dict[str, Tensor]:
    """The weights of an ``LDMTextEncoder`` by the names of Latent Diffusion; it has no ``to_logits``."""
    return compvis_rules().to_theirs(module.state_dict())


def load_diffusers_ldm_text(folder: str | Path, tokenizer: Any = None, *, name: str = "text") -> LDMTextEncoder:
    """Read an ``LDMBertModel`` that diffusers saved.

    Args:
        folder: has ``config.json`` and the weights.
        tokenizer: see ``LDMTextEncoder``.
        name: see ``LDMTextEncoder``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming a key of the configuration that cannot be represented; or listing weights that do not fit.
    """
    folder = Path(folder)
    config: dict[str, Any] = read_config(folder)
    fixed = FIXED | {"encoder_ffn_dim": 4 * config["d_model"]}
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise ValueError(f"{CLASS}: {key}={config[key]!r}, but an LDMTextEncoder has {value!r}")
    encoder = LDMTextEncoder(tokenizer=tokenizer, name=name, **{ours: config[theirs] for theirs, ours in SIZES.items()})
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has none of {list(WEIGHTS)}; give the folder of a {CLASS}")
    load_foreign(encoder, read_weights(file), diffusers_rules())
    return encoder.eval()


def save_diffusers_ldm_text(encoder: LDMTextEncoder, folder: str | Path) -> None:
    """Write a folder that ``LDMBertModel.from_pretrained`` of diffusers reads.

    Args:
        encoder: the encoder. Its tokenizer is not written.
        folder: is made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    config = {
        "architectures": [CLASS],
        "model_type": "ldmbert",
        **{theirs: getattr(encoder, ours) for theirs, ours in SIZES.items()},
        "encoder_ffn_dim": 4 * encoder.width,
        "num_hidden_layers": encoder.depth,
        "dropout": 0.0,
        "pad_token_id": 0,
        **FIXED,
    }
    write_model(folder, config, diffusers_rules().to_theirs(encoder.state_dict()), stem="model")
