"""What encoders of text have in common."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Texts = Sequence[str]


class TextEncoder(nn.Module):
    """Base class: texts, or their tokens, to conditional inputs.

    The text that stands for none is "", as in Stable Diffusion. A new encoder writes ``tokenize`` and ``encode``.

    Attributes:
        names: the conditional inputs that ``encode`` gives.
    """

    names: tuple[str, ...]

    def tokenize(self, texts: Texts) -> Tensor:
        """The numbers of the tokens, int64 ``[b, n]``."""
        raise NotImplementedError(f"{type(self).__name__} must define tokenize")

    def encode(self, ids: Tensor) -> dict[str, Tensor]:
        """Conditional inputs of the network by name, from tokens ``[b, n]``."""
        raise NotImplementedError(f"{type(self).__name__} must define encode")

    def forward(self, value: Tensor | Texts) -> dict[str, Tensor]:
        """Encode texts, or tokens of ``tokenize``.

        Raises:
            ValueError: for a single text instead of a list of them.
        """
        if isinstance(value, str):
            raise ValueError(f"a batch of texts is needed, but {value!r} is one; give [{value!r}]")
        ids = value if isinstance(value, Tensor) else self.tokenize(value).to(self.device)
        return self.encode(ids)

    def null(self) -> Tensor | Texts:
        """No text, for a batch of one."""
        return self.tokenize([""]).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def encode_distinct(encoder: Callable[[list[str]], dict[str, Tensor]], texts: Texts) -> dict[str, Tensor]:
    """``encoder(texts)``, with each distinct text encoded once.

    Raises:
        ValueError: for a single text instead of a list of them, or for none.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f"a batch of texts is needed, but {texts!r} was given; give a list of at least one text")
    distinct = list(dict.fromkeys(texts))
    row = {text: i for i, text in enumerate(distinct)}
    encoded = encoder(distinct)
    rows = [row[text] for text in texts]
    return {name: value[torch.tensor(rows, device=value.device)] for name, value in encoded.items()}
