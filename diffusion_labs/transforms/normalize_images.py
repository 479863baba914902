"""Pixels to numbers."""

from typing import Any

import torch

from diffusion_labs.transforms.transform import Batch, Transform


class NormalizeImages(Transform):
    """8-bit images to float32 in [-1, 1]: ``x / 127.5 - 1``.

    Args:
        data_field: images to read and write, uint8, ``[b, c, h, w]``.
    """

    def __init__(self, *, data_field: str = "x") -> None:
        super().__init__()
        self.data_field = data_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class.

        Raises:
            TypeError: if the images are not uint8.
        """
        x = self.field(batch, self.data_field)
        if x.dtype != torch.uint8:
            raise TypeError(f"NormalizeImages needs uint8 images in '{self.data_field}', not {x.dtype}")
        return {**batch, self.data_field: x.float() / 127.5 - 1}
