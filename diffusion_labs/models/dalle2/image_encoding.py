"""An image as DALL-E 2 has it."""

from typing import NamedTuple

from torch import Tensor


class ImageEncoding(NamedTuple):
    """What CLIP sees in an image, and the noise that holds the rest.

    Attributes:
        embedding: of CLIP, ``[b, d]``.
        noise: from which the decoder makes the image, ``[b, c, size, size]``.
    """

    embedding: Tensor
    noise: Tensor
