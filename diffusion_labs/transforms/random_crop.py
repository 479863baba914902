"""Training on parts of images."""

from typing import Any

import torch

from diffusion_labs.randomness import independent_uniform
from diffusion_labs.transforms.transform import Batch, Transform


class RandomCrop(Transform):
    """Cuts a square out of each image, each at its own place.

    The corners are at multiples of a number. With the factor of an upsampler there, the crop covers whole pixels of the
    image of low resolution, and shows what a part of that image would. DALL-E 2 trains its upsamplers so, on a quarter
    of the side (arXiv 2204.06125, section 2.1): first the crop, then ``SuperResolutionTransform``, then faults.

    Args:
        size: height and width of the crop, a multiple of ``multiple``.
        multiple: the corners are at multiples of this.
        data_field: images to read, ``[b, c, h, w]``, and crops to write, ``[b, c, size, size]``.

    Example:
        >>> transform = nn.Sequential(RandomCrop(64, multiple=4), SuperResolutionTransform(16, blur_sigma=(0.6, 0.6)))
        >>> {name: list(value.shape) for name, value in transform({"x": torch.randn(2, 3, 256, 256)}).items()}
        {'x': [2, 3, 64, 64], 'low_resolution': [2, 3, 16, 16]}
    """

    def __init__(self, size: int, *, multiple: int = 1, data_field: str = "x") -> None:
        super().__init__()
        if multiple < 1 or size < 1 or size % multiple != 0:
            raise ValueError(f"size ({size}) must be a positive multiple of multiple ({multiple}); change one of them")
        self.size = size
        self.multiple = multiple
        self.data_field = data_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class.

        Raises:
            ValueError: if the images are smaller than the crop.
        """
        x = self.field(batch, self.data_field)
        if x.ndim != 4 or min(x.shape[2:]) < self.size:
            raise ValueError(
                f"'{self.data_field}' has shape {list(x.shape)}; crops of {self.size} need images [b, c, h, w] at "
                "least as large"
            )
        b, c, *sides = x.shape
        places = [(side - self.size) // self.multiple + 1 for side in sides]
        chosen = (independent_uniform(x, self.generator(batch, i)) * number for i, number in enumerate(places))
        top, left = (self.multiple * place.long().reshape(b, 1, 1, 1) for place in chosen)

        within = torch.arange(self.size, device=x.device)
        sample = torch.arange(b, device=x.device)[:, None, None, None]
        channel = torch.arange(c, device=x.device)[:, None, None]
        return {**batch, self.data_field: x[sample, channel, top + within[:, None], left + within]}
