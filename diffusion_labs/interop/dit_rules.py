"""The keys of DiT in its own code and in diffusers."""

from typing import Any

from torch import Tensor

from diffusion_labs.interop.diffusers_models import refuse_others
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, nested
from diffusion_labs.layers import GatedFeedForward, RotaryPositions, entry_name
from diffusion_labs.models.transformer import DiT

BATCHED = TensorChange(lambda positions: positions[0], lambda positions: positions[None])


def dit_rules(model: DiT) -> KeyRules:
    """Of the code that was released with the paper, whose blocks share one embedding of the time and the class.

    Args:
        model: with one class condition, or without one.
    """
    block = [
        KeyRule("attn.qkv.*", "attention.qkv.*"),
        KeyRule("attn.proj.*", "attention.out.*"),
        KeyRule("mlp.fc1.*", "feed_forward.linear_in.*"),
        KeyRule("mlp.fc2.*", "feed_forward.linear_out.*"),
        KeyRule("adaLN_modulation.1.*", "modulation.1.*"),
    ]
    return KeyRules(
        [
            KeyRule("x_embedder.proj.*", "patches.*"),
            KeyRule("pos_embed", "positions", BATCHED),
            KeyRule("t_embedder.mlp.0.*", "embeddings.0.time.linear_in.*"),
            KeyRule("t_embedder.mlp.2.*", "embeddings.0.time.linear_out.*"),
            *[KeyRule("y_embedder.embedding_table.weight", f"embeddings.0.{table}") for table in _tables(model)],
            *nested({"blocks.{i}": "blocks.{i}"}, block),
            KeyRule("final_layer.adaLN_modulation.1.*", "head.modulation.1.*"),
            KeyRule("final_layer.linear.*", "head.linear.*"),
        ]
    )


def diffusers_dit_rules(model: DiT) -> KeyRules:
    """Of ``DiTTransformer2DModel``, each block of which has its own embedding of the time and the class.

    Args:
        model: with one class condition.
    """
    embedding = [
        KeyRule("timestep_embedder.linear_1.*", "time.linear_in.*"),
        KeyRule("timestep_embedder.linear_2.*", "time.linear_out.*"),
        *[KeyRule("class_embedder.embedding_table.weight", table) for table in _tables(model)],
    ]
    block = [
        KeyRule("norm1.linear.*", "modulation.1.*"),
        KeyRule("attn1.to_q,to_k,to_v.*", "attention.qkv.*"),
        KeyRule("attn1.to_out.0.*", "attention.out.*"),
        KeyRule("ff.net.0.proj.*", "feed_forward.linear_in.*"),
        KeyRule("ff.net.2.*", "feed_forward.linear_out.*"),
    ]
    return KeyRules(
        [
            KeyRule("pos_embed.proj.*", "patches.*"),
            KeyRule("pos_embed.pos_embed", "positions", BATCHED),
            *nested({"transformer_blocks.{i}.norm1.emb": "embeddings.{i}"}, embedding),
            *nested({"transformer_blocks.{i}": "blocks.{i}"}, block),
            KeyRule("proj_out_1.*", "head.modulation.1.*"),
            KeyRule("proj_out_2.*", "head.linear.*"),
        ],
        joined=[("to_q", "to_k", "to_v")],
    )


def _tables(model: DiT) -> list[str]:
    return [f"classes.{entry_name(name)}.table.weight" for name in list(model.null_conditions)[:1]]


PLAIN = {"rotary": False, "swiglu": False}  # in all of their networks


def settings(model: DiT) -> dict[str, float]:
    """What the network computes with and no weight shows, by the names of the options of ``dit``."""
    embedding: Any = model.embeddings[0]
    block: Any = model.blocks[0]
    return {
        "time_shift": embedding.time.shift,
        "time_scale": embedding.time.scale,
        "norm_eps": block.norm_attention.eps,
        "feed_forward_eps": block.norm_feed_forward.eps,
        "rotary": any(isinstance(part, RotaryPositions) for part in block.attention.norm_q.modules()),
        "swiglu": isinstance(block.feed_forward, GatedFeedForward),
    }


def refuse_settings(model: DiT, expected: dict[str, float], whose: str) -> None:
    """Raise a ``ValueError`` for a network that computes otherwise than theirs with the same weights."""
    refuse_others(settings(model), {**PLAIN, **expected}, whose)


def embeddings_agree(tensors: dict[str, Tensor], depth: int) -> bool:
    """Whether all blocks of a ``DiTTransformer2DModel`` have the same embedding."""
    first = "transformer_blocks.0.norm1.emb."
    own = {key.removeprefix(first): value for key, value in tensors.items() if key.startswith(first)}
    return all(
        f"transformer_blocks.{i}.norm1.emb.{key}" in tensors
        and tensors[f"transformer_blocks.{i}.norm1.emb.{key}"].equal(value)
        for i in range(depth)
        for key, value in own.items()
    )
