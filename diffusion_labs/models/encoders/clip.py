"""What DALL-E 2 needs of CLIP."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from diffusion_labs.models.encoders.text_encoder import Texts


class EncodedText(NamedTuple):
    """What CLIP says of texts.

    Attributes:
        embedding: of length 1, ``[b, d]``.
        hidden: the states of the tokens, ``[b, n, e]``.
        mask: which of them are tokens and no padding, bool ``[b, n]``.
    """

    embedding: Tensor
    hidden: Tensor
    mask: Tensor


@runtime_checkable
class CLIP(Protocol):
    """Images and texts in one space of embeddings (arXiv 2103.00020): ``TransformersCLIP``, or one of yours.

    Attributes:
        embed_dim: width d of the embeddings.
    """

    training: bool

    @property
    def embed_dim(self) -> int: ...

    def encode_image(self, x: Tensor) -> Tensor:
        """The embeddings, of length 1, ``[b, d]``, of images ``[b, c, h, w]`` in [-1, 1]."""

    def encode_text(self, texts: Tensor | Texts) -> EncodedText:
        """Of texts, or their tokens."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As a module's."""

    def train(self, mode: bool = True) -> Any:
        """As a module's."""
