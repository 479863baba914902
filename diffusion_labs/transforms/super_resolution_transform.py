"""Training data for super-resolution."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.randomness import KeyedGenerator, independent_uniform, randn_like
from diffusion_labs.transforms.transform import Batch, Transform

Range = tuple[float, float]


class SuperResolutionTransform(Transform):
    """Makes the low-resolution image that a super-resolution model is conditioned on.

    The image is resized with antialiasing, then optionally blurred (DALL-E 2, arXiv 2204.06125, App. C:
    kernel 3, sigma 0.6; SR3: half of the images, sigma in [0.4, 0.6]) and noised (cascaded diffusion,
    arXiv 2106.15282, Sec. 3), so that the model forgives the faults of a generated input.

    Args:
        size: height and width of the low-resolution image.
        blur_sigma: range of the Gaussian blur's standard deviation, in low-resolution pixels; no blur
            if ``None``.
        blur_probability: share of the images that is blurred.
        blur_kernel_size: odd width of the kernel.
        noise_sigma: range of the standard deviation of added noise; none if ``None``.
        data_field: image to read, ``[b, c, h, w]``.
        image_field: image to write, ``[b, c, size, size]``.
    """

    def __init__(
        self,
        size: int,
        *,
        blur_sigma: Range | None = None,
        blur_probability: float = 1.0,
        blur_kernel_size: int = 3,
        noise_sigma: Range | None = None,
        data_field: str = "x",
        image_field: str = "low_resolution",
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size ({size}) must be at least 1")
        for name, given in (("blur_sigma", blur_sigma), ("noise_sigma", noise_sigma)):
            if given is not None and not 0 <= given[0] <= given[1]:
                raise ValueError(f"{name} {given} must be a range (low, high) of standard deviations >= 0")
        if not 0 <= blur_probability <= 1:
            raise ValueError(f"blur_probability ({blur_probability}) must be in [0, 1]")
        if blur_kernel_size < 1 or blur_kernel_size % 2 == 0:
            raise ValueError(f"blur_kernel_size ({blur_kernel_size}) must be odd and positive")
        self.size = size
        self.blur_sigma = blur_sigma
        self.blur_probability = blur_probability
        self.blur_kernel_size = blur_kernel_size
        self.noise_sigma = noise_sigma
        self.data_field = data_field
        self.image_field = image_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class.

        Raises:
            ValueError: if the images are smaller than ``size``, or integers.
        """
        x = self.field(batch, self.data_field)
        if not x.is_floating_point():
            raise ValueError(f"'{self.data_field}' has dtype {x.dtype}; normalise the images first (NormalizeImages)")
        if min(x.shape[-2:]) < self.size:
            raise ValueError(f"'{self.data_field}' has shape {list(x.shape)}, smaller than size ({self.size})")
        low = F.interpolate(
            x.to(torch.promote_types(x.dtype, torch.float32)),
            size=(self.size, self.size),
            mode="bilinear",
            antialias=True,
        ).to(x.dtype)
        if self.blur_sigma is not None:
            sigma = uniform(low, self.blur_sigma, self.generator(batch, 0))
            blurred = gaussian_blur(low, sigma, self.blur_kernel_size)
            chosen = independent_uniform(low, self.generator(batch, 1)) < self.blur_probability
            low = torch.where(chosen.reshape(-1, 1, 1, 1), blurred, low)
        if self.noise_sigma is not None:
            sigma = uniform(low, self.noise_sigma, self.generator(batch, 2)).reshape(-1, 1, 1, 1)
            low = low + sigma * randn_like(low, self.generator(batch, 3))
        return {**batch, self.image_field: low}


def uniform(x: Tensor, bounds: Range, generator: KeyedGenerator | None) -> Tensor:
    """One uniform number in ``bounds`` per sample of ``x``, ``[b]``."""
    low, high = bounds
    return (low + (high - low) * independent_uniform(x, generator)).to(x.dtype)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur images with a Gaussian, with one standard deviation per image; edges are replicated.

    Args:
        x: ``[b, c, h, w]``.
        sigma: standard deviations in pixels, ``[b]``; 0 leaves the image as it is.
        kernel_size: odd width of the kernel.
    """
    b, c, h, w = x.shape
    radius = kernel_size // 2
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-6).reshape(-1, 1)) ** 2)  # [b, k]
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)

    padded = F.pad(x, [radius] * 4, mode="replicate").reshape(1, b * c, h + 2 * radius, w + 2 * radius)
    rows = F.conv2d(padded, kernel.reshape(-1, 1, kernel_size, 1), groups=b * c)
    return F.conv2d(rows, kernel.reshape(-1, 1, 1, kernel_size), groups=b * c).reshape(x.shape)
