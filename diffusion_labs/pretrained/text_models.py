"""Text models of the library transformers, CLIP, and tokenizers, inside of our components."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_labs.models.encoders.tokenizer import import_transformers

MODELS = (
    "CLIPModel",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "T5EncoderModel",
    "BertModel",
    "DistilBertModel",
    "MPNetModel",
    "RobertaModel",
    "XLMRobertaModel",
)
# Keys of where a model came from, and of code that would be fetched for it
NOT_KEPT = ("_name_or_path", "transformers_version", "auto_map", "quantization_config")
FETCHED = "implementation"  # the end of keys that choose code, as attn_implementation


def is_model(value: object) -> bool:
    """Whether it is a model of transformers, which is not imported for the question."""
    return _has_base(value, "PreTrainedModel")


def is_tokenizer(value: object) -> bool:
    """Whether it is a tokenizer of transformers."""
    return _has_base(value, "PreTrainedTokenizerBase")


def config_of(model: Any) -> dict[str, Any]:
    """The configuration of a model, as plain data.

    Raises:
        ValueError: for a class that is not in ``MODELS``.
    """
    _check(type(model).__name__)
    config: dict[str, Any] = _kept_of(model.config.to_dict())
    return config


def build_model(name: object, config: Mapping[str, Any]) -> Any:
    """The model of a configuration, with random weights, by code of the installed transformers.

    Raises:
        ValueError: for a class that is not in ``MODELS``, or a key that names code.
    """
    _check(name)
    refused = _refused(config)
    if refused:
        raise ValueError(f"names {refused} for {name}, which is no size or setting of a model; remove them")
    model_class = getattr(import_transformers("the text encoder"), str(name))
    return model_class(model_class.config_class.from_dict(dict(config)))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, by code of the installed transformers alone."""
    tokenizer = import_transformers("the text encoder").AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    for note in ("is_local", "local_files_only"):  # how it was read, which it would write
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def _has_base(value: object, name: str) -> bool:
    return any(
        base.__name__ == name and base.__module__.partition(".")[0] == "transformers" for base in type(value).__mro__
    )


def _check(name: object) -> None:
    if name not in MODELS:
        raise ValueError(f"names the model {name!r} of transformers, which is not known here; give one of {MODELS}")


def _kept(key: object) -> bool:
    return key not in NOT_KEPT and not str(key).endswith(FETCHED)


def _kept_of(config: Any) -> Any:
    """A configuration without what is not kept, in the configurations of its parts, too."""
    if not isinstance(config, Mapping):
        return config
    return {key: _kept_of(value) for key, value in config.items() if _kept(key)}


def _refused(config: Any) -> list[str]:
    """The keys that are not kept, of a configuration and of those of its parts."""
    if not isinstance(config, Mapping):
        return []
    return [name for key, value in config.items() for name in ([] if _kept(key) else [key]) + _refused(value)]
