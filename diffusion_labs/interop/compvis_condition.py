"""Condition encoders in the checkpoints of Latent Diffusion and Stable Diffusion."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from diffusion_labs.interop.clip_text import load_clip_text, to_clip_text, to_open_clip_text
from diffusion_labs.interop.key_rules import UNCHANGED, KeyRule, KeyRules, Mismatch, load_foreign
from diffusion_labs.interop.ldm_text import load_ldm_text, to_ldm_text
from diffusion_labs.interop.unet_rules import WITHOUT_NULL
from diffusion_labs.models.encoders import ClassEmbedding, LDMTextEncoder, SpatialRescaler

PREFIX = "cond_stage_model."
_SHOWN = 10  # keys that an error lists


def class_rules(*, null_class: bool) -> KeyRules:
    """Of ``ClassEmbedder``.

    Args:
        null_class: the last class there is the null class here, as of cin256-v2. Otherwise there is none there, as of
            cin256: it becomes zeros.
    """
    return KeyRules([KeyRule("embedding.weight", "table.weight", UNCHANGED if null_class else WITHOUT_NULL)])


def rescaler_rules() -> KeyRules:
    """Of ``SpatialRescaler``."""
    return KeyRules([KeyRule("channel_mapper.weight", "mix.weight")])


def load_class_embedding(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> Mismatch:
    """Load a ``ClassEmbedding``, whose table has a row for no class there, or has none."""
    rows = len(tensors["embedding.weight"])
    classes: int = module.num_classes  # type: ignore[assignment]
    return load_foreign(module, tensors, class_rules(null_class=rows != classes), strict=strict)


def to_class_embedding(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a ``ClassEmbedding``; a row of zeros for no class is left out, as it stands for none there."""
    null_class = bool(module.table.weight[-1].any())  # type: ignore[union-attr, index]
    return class_rules(null_class=null_class).to_theirs(module.state_dict())


def load_rescaler(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> Mismatch:
    """Load a ``SpatialRescaler`` that mixes channels."""
    return load_foreign(module, tensors, rescaler_rules(), strict=strict)


def to_rescaler(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a ``SpatialRescaler``."""
    return rescaler_rules().to_theirs(module.state_dict())


class Kind(NamedTuple):
    """A kind of condition encoder.

    Attributes:
        module: what it is loaded into.
        prefix: of all of its keys, after ``cond_stage_model.``.
        marks: keys after that, of which it has one, and other kinds have none.
        load: ``load(module, tensors, strict=True)``, without the prefix.
        to_theirs: the tensors of a module, without the prefix.
    """

    module: str
    prefix: str
    marks: tuple[str, ...]
    load: Callable[..., Mismatch]
    to_theirs: Callable[[nn.Module], dict[str, Tensor]]


_TOKENS = "embeddings.token_embedding.weight"
CLIP = Kind(
    "CLIPTextModel", "transformer.", (_TOKENS, f"text_model.{_TOKENS}"), load_clip_text, to_clip_text
)  # Stable Diffusion 1
OPEN_CLIP = Kind("CLIPTextModel", "model.", ("positional_embedding",), load_clip_text, to_open_clip_text)  # 2
KINDS: dict[type, Kind] = {
    LDMTextEncoder: Kind("LDMTextEncoder", "transformer.", ("token_emb.weight",), load_ldm_text, to_ldm_text),
    ClassEmbedding: Kind("ClassEmbedding", "", ("embedding.weight",), load_class_embedding, to_class_embedding),
    SpatialRescaler: Kind("SpatialRescaler", "", ("channel_mapper.weight",), load_rescaler, to_rescaler),
}


def load_compvis_condition(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> Mismatch:
    """Load a condition encoder.

    Args:
        module: a ``ClassEmbedding``, ``LDMTextEncoder``, ``SpatialRescaler``, a ``CLIPTextModel`` of transformers, or a
            module around one.
        tensors: the weights, by their names below ``cond_stage_model.``.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for an encoder of another kind, naming it; or weights of other sizes, naming the keys.
    """
    kinds = (CLIP, OPEN_CLIP, *KINDS.values())
    found = next((kind for kind in kinds if any(kind.prefix + mark in tensors for mark in kind.marks)), None)
    wanted = KINDS.get(type(module), CLIP).module
    if found is None or found.module != wanted:
        what = "of no kind that is known here" if found is None else f"a {found.module}"
        keys = [PREFIX + key for key in list(tensors)[:_SHOWN]]
        known = list(dict.fromkeys(kind.module for kind in kinds))
        raise ValueError(
            f"the condition encoder of the checkpoint is {what}, with keys like {keys}, and a {type(module).__name__} "
            f"was given; give the one of its kind, among {known}, or none"
        )
    inside = {key.removeprefix(found.prefix): value for key, value in tensors.items() if key.startswith(found.prefix)}
    return found.load(module, inside, strict=strict)


def to_compvis_condition(module: nn.Module, *, version: int = 1) -> dict[str, Tensor]:
    """The weights of a condition encoder, by their names below ``cond_stage_model.``.

    Args:
        module: see ``load_compvis_condition``.
        version: of the names of CLIP: those of Stable Diffusion 1 or 2.

    Raises:
        ValueError: for a module that has no names there.
    """
    kind = KINDS.get(type(module), CLIP if version == 1 else OPEN_CLIP)
    return {kind.prefix + key: value for key, value in kind.to_theirs(module).items()}
