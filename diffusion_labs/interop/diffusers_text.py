"""The text encoders in the folders of diffusers' pipelines: of CLIP, one or two, and of Latent Diffusion."""

from pathlib import Path
from typing import Any

import torch

from diffusion_labs.interop.ldm_text import CLASS as LDM_TEXT_CLASS
from diffusion_labs.interop.ldm_text import load_diffusers_ldm_text, save_diffusers_ldm_text
from diffusion_labs.models.encoders import (
    CLIPTextEncoder,
    ConcatTextEncoder,
    LDMTextEncoder,
    PretrainedTextEncoder,
    UnCLIPTextEncoder,
    last_states,
    penultimate_states,
)
from diffusion_labs.models.encoders.tokenizer import load_tokenizer

CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
TEXT_NAME, POOLED_NAME = "text", "pooled_text"
LDM_LENGTH = 77  # tokens in a pipeline of Latent Diffusion, whatever its encoder has


def read_text_encoder(folder: Path, variant: str | None) -> CLIPTextEncoder:
    """That of Stable Diffusion 1 and 2."""
    return _read(folder, "", variant)


def read_text_encoders(folder: Path, variant: str | None) -> ConcatTextEncoder:
    """Those of Stable Diffusion XL: the states of the last layer but one of both, and the second's pooled output."""
    first = _read(folder, "", variant, states=penultimate_states)
    options: dict[str, Any] = {"states": penultimate_states, "pooled_name": POOLED_NAME}
    return ConcatTextEncoder([first, _read(folder, "_2", variant, model_class=CLASSES[1], **options)])


def write_text_encoder(encoder: Any, folder: Path) -> dict[str, list[str | None]]:
    """Write that of Stable Diffusion 1 and 2, and say what was written."""
    return _write(encoder, folder, "", last_states, CLASSES[0])


def write_text_encoders(encoder: Any, folder: Path) -> dict[str, list[str | None]]:
    """Write those of Stable Diffusion XL, and say what was written."""
    parts = list(encoder.encoders)
    kinds = [type(part) for part in parts]
    if kinds != [CLIPTextEncoder] * 2 or parts[0].names != parts[1].names[:1] or len(encoder.names) != 2:
        raise ValueError(
            f"the text is encoded by {[kind.__name__ for kind in kinds]} to {list(encoder.names)}, but for diffusers "
            "it must be by two CLIPTextEncoders of one name, of which the second has a pooled_name"
        )
    first, second = (
        _write(part, folder, suffix, penultimate_states, name)
        for part, suffix, name in zip(parts, ("", "_2"), CLASSES, strict=True)
    )
    return first | second


def read_ldm_text_encoder(folder: Path, variant: str | None) -> LDMTextEncoder:
    """That of Latent Diffusion; its files have no variants."""
    tokenizer = load_tokenizer(folder, "tokenizer", needed_by="LDMTextEncoder")
    return _checked_length(load_diffusers_ldm_text(folder / "bert", tokenizer))


def write_ldm_text_encoder(encoder: Any, folder: Path) -> dict[str, list[str | None]]:
    """Write that of Latent Diffusion, and say what was written."""
    _check_tokenizer(encoder)
    save_diffusers_ldm_text(_checked_length(encoder), folder / "bert")
    encoder.tokenizer.save_pretrained(folder / "tokenizer")
    return {"bert": ["latent_diffusion", LDM_TEXT_CLASS], "tokenizer": ["transformers", "BertTokenizer"]}


def read_unclip_text_encoder(folder: Path, variant: str | None) -> UnCLIPTextEncoder:
    """That of unCLIP."""
    encoder: UnCLIPTextEncoder = _read(folder, "", variant, UnCLIPTextEncoder)
    return encoder


def write_unclip_text_encoder(encoder: Any, folder: Path) -> None:
    """Write that of unCLIP."""
    _check_tokenizer(encoder)
    encoder.model.save_pretrained(folder / "text_encoder")
    encoder.tokenizer.save_pretrained(folder / "tokenizer")


def _checked_length(encoder: LDMTextEncoder) -> LDMTextEncoder:
    if encoder.max_length != LDM_LENGTH:
        raise ValueError(
            f"a pipeline of Latent Diffusion has texts of {LDM_LENGTH} tokens, but the encoder has "
            f"max_length={encoder.max_length}"
        )
    return encoder


def _check_tokenizer(encoder: Any) -> None:
    if encoder.tokenizer is None:
        raise ValueError("the text encoder has no tokenizer, which a pipeline needs; give it one")


def _read(
    folder: Path, suffix: str, variant: str | None, kind: type[PretrainedTextEncoder] = CLIPTextEncoder, **options: Any
) -> Any:
    model_folder = f"text_encoder{suffix}"
    has_variant = variant is not None and any((folder / model_folder).glob(f"*.{variant}*"))
    encoder = kind.from_pretrained(
        folder,
        model_folder=model_folder,
        tokenizer_folder=f"tokenizer{suffix}",
        variant=variant if has_variant else None,
        **options,
    )
    return encoder.to(torch.get_default_dtype())


def _write(encoder: Any, folder: Path, suffix: str, states: Any, name: str) -> dict[str, list[str | None]]:
    if encoder.states is not states:
        raise ValueError(
            f"a text encoder gives its {encoder.states.__name__}, but such a pipeline of diffusers takes "
            f"{states.__name__}"
        )
    if type(encoder.model).__name__ != name:
        raise ValueError(f"a text encoder has a {type(encoder.model).__name__}, but text_encoder{suffix} is a {name}")
    _check_tokenizer(encoder)
    encoder.model.save_pretrained(folder / f"text_encoder{suffix}")
    encoder.tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    return {
        f"text_encoder{suffix}": ["transformers", name],
        f"tokenizer{suffix}": ["transformers", "CLIPTokenizer"],
    }
