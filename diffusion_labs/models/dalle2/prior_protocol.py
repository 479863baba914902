"""What DALL-E 2 needs of a prior."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from diffusion_labs.randomness import Generators


@runtime_checkable
class Prior(Protocol):
    """A module that draws embeddings of images, given those of texts."""

    def sample(
        self, conditional_inputs: Mapping[str, Tensor], candidates: int = 2, *, generator: Generators = None
    ) -> Tensor:
        """Embeddings ``[b, d]``: of some candidates for each text, the one that fits best.

        ``conditional_inputs`` are ``text_embedding`` ``[b, d]``, ``text`` ``[b, n, e]`` and ``text_mask`` ``[b, n]``,
        and the same with ``negative_`` before the name where guidance shall lead away from a text.
        """
