"""Tokenizers of the library transformers."""

from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_labs.models.encoders.text_encoder import Texts

LEGACY_END = 2  # what old configurations of CLIP have as the end, where it is the largest number among the tokens


def import_transformers(needed_by: str) -> Any:
    """The library.

    Raises:
        ImportError: naming the extra, without it.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f"{needed_by} needs the package transformers; pip install 'diffusion-labs[text]'") from error
    return transformers


def load_tokenizer(source: str | Path, folder: str, *, needed_by: str) -> Any:
    """A tokenizer from a local folder, or by its name on the Hugging Face hub.

    Args:
        source: folder or name.
        folder: of the tokenizer inside of it, or "".
        needed_by: what an error names.

    Raises:
        ImportError: without the package ``transformers``.
    """
    return import_transformers(needed_by).AutoTokenizer.from_pretrained(source, subfolder=folder)


def tokenized(texts: Texts, tokenizer: Any, *, padding: str, max_length: int, needed_by: str) -> Tensor:
    """The tokens of texts, int64 ``[b, n]``.

    Args:
        texts: longer ones are cut.
        tokenizer: of transformers.
        padding: to the ``"longest"`` of the texts, or to ``"max_length"``.
        max_length: tokens of the longest text.
        needed_by: what an error names.

    Raises:
        ValueError: without a tokenizer.
    """
    if tokenizer is None:
        raise ValueError(f"this {needed_by} has no tokenizer; give it one, or give tokens for texts")
    ids: Tensor = tokenizer(list(texts), padding=padding, truncation=True, max_length=max_length, return_tensors="pt")[
        "input_ids"
    ]
    return ids


def up_to_end(ids: Tensor, end: int) -> Tensor:
    """Which tokens of CLIP are not padding: those up to the first end of the text, which is also what many pad with.

    Args:
        ids: the tokens, ``[b, n]``.
        end: the number of the end in the configuration of the model.

    Returns:
        Bool ``[b, n]``.
    """
    is_end = ids == (ids.amax(1, keepdim=True) if end == LEGACY_END else end)
    return is_end.cumsum(1) - is_end.long() == 0
