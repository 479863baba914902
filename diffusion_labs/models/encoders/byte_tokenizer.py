"""Texts as bytes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

START = 256  # the numbers below are bytes
END = 257
PADDING = 258
VOCABULARY = 259


class ByteTokenizer:
    """The bytes of UTF-8 between a start and an end, called as a tokenizer of transformers: no vocabulary to learn.

    Example:
        >>> ByteTokenizer()(["ab", ""], max_length=16)["input_ids"].tolist()
        [[256, 97, 98, 257], [256, 257, 258, 258]]
    """

    bos_token_id = START
    eos_token_id = END
    pad_token_id = PADDING

    def __len__(self) -> int:
        """How many tokens there are."""
        return VOCABULARY

    def __call__(self, texts: Sequence[str], *, max_length: int, **other: Any) -> dict[str, Tensor]:
        """The numbers of the tokens of texts, as ``input_ids``, padded to the longest of the batch.

        Args:
            texts: longer ones are cut, between two characters.
            max_length: the largest number of tokens, start and end included.
            **other: what other tokenizers are told of padding and of tensors.

        Raises:
            ValueError: if start and end alone are longer.
        """
        if max_length < 2:
            raise ValueError(f"max_length ({max_length}) must be at least 2, for start and end")
        rows = [[START, *cut(text, max_length - 2), END] for text in texts]
        length = max(map(len, rows), default=2)
        ids = torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.long, device="cpu")
        return {"input_ids": ids}


def cut(text: str, size: int) -> bytes:
    """The UTF-8 of as many whole characters of a text as fit."""
    return text.encode()[:size].decode(errors="ignore").encode()
