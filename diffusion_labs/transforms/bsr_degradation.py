"""Faults of images as super-resolution meets them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion_labs.randomness import randn_like
from diffusion_labs.transforms.jpeg import jpeg
from diffusion_labs.transforms.super_resolution_transform import Range, uniform
from diffusion_labs.transforms.transform import Batch, Transform


class BSRDegradation(Transform):
    """Blurs, resizes, noises and compresses images, in an order drawn for each, and compresses them once more.

    After BSRGAN's degradation (arXiv 2103.14006, section 3) in the light form of Latent Diffusion, which DALL-E 2 uses
    for its second upsampler (arXiv 2204.06125, section 2.1): so that the model forgives the faults of a generated
    input. There the large image is degraded; here the small one, which comes out as large as it was. All resizing is
    bilinear. Each fault is computed in each place of the order and then chosen, so it compiles as one graph.

    Args:
        blur_sigma: range of the standard deviations of a Gaussian, along two axes of any direction; for half of the
            images they are equal.
        resize: range of the factor by which an image is made smaller, and larger again.
        noise_sigma: range of the standard deviation of the noise; for half of the images it is grey.
        jpeg_quality: range of the quality.
        blur_kernel_size: odd width of the kernel.
        image_field: images to read and to write, in [-1, 1], ``[b, c, h, w]`` with one or three channels.
    """

    def __init__(
        self,
        *,
        blur_sigma: Range = (0.1, 0.8),
        resize: Range = (1.0, 2.0),
        noise_sigma: Range = (1 / 127.5, 2 / 127.5),
        jpeg_quality: Range = (80.0, 95.0),
        blur_kernel_size: int = 7,
        image_field: str = "low_resolution",
    ) -> None:
        super().__init__()
        ranges = {
            "blur_sigma": (blur_sigma, 0, math.inf),
            "resize": (resize, 1, math.inf),
            "noise_sigma": (noise_sigma, 0, math.inf),
            "jpeg_quality": (jpeg_quality, 1, 100),
        }
        for name, (given, least, most) in ranges.items():
            if not least <= given[0] <= given[1] <= most:
                raise ValueError(f"{name} {given} must be a range (low, high) within [{least}, {most}]")
        if blur_kernel_size < 1 or blur_kernel_size % 2 == 0:
            raise ValueError(f"blur_kernel_size ({blur_kernel_size}) must be odd and positive")
        self.blur_sigma = blur_sigma
        self.resize = resize
        self.noise_sigma = noise_sigma
        self.jpeg_quality = jpeg_quality
        self.blur_kernel_size = blur_kernel_size
        self.image_field = image_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class.

        Raises:
            ValueError: if the images are integers, or have other numbers of dimensions or channels.
        """
        given = self.field(batch, self.image_field)
        if given.ndim != 4:
            raise ValueError(f"'{self.image_field}' has shape {list(given.shape)}, but must be [b, c, h, w]")
        if not given.is_floating_point():
            raise ValueError(f"'{self.image_field}' has dtype {given.dtype}; normalise the images (NormalizeImages)")
        x = given.to(torch.promote_types(given.dtype, torch.float32))
        # What each image gets
        sigmas, unit, half_turn = self.blur_sigma, (0.0, 1.0), (0.0, math.pi)
        bounds = [sigmas, sigmas, half_turn, self.resize, self.noise_sigma, self.jpeg_quality, self.jpeg_quality]
        drawn = [uniform(x, each, self.generator(batch, i)) for i, each in enumerate([*bounds, *[unit] * 6])]
        first, second, angle, factor, strength, *qualities = drawn[:7]
        round_blur, in_grey, *places = drawn[7:]
        second = torch.where(round_blur < 0.5, first, second)
        kernel = gaussian_kernel(first, second, angle, self.blur_kernel_size)
        colours = randn_like(x, self.generator(batch, len(drawn)))
        grey = (in_grey < 0.5).reshape(-1, 1, 1, 1)
        noise = torch.where(grey, colours[:, :1], colours) * strength.reshape(-1, 1, 1, 1)
        first_quality, last_quality = (quality.round() for quality in qualities)

        # In its own order
        order = torch.stack(places, 1).argsort(1)
        sample = torch.arange(len(x), device=x.device)
        for place in range(4):
            faulty = (blur(x, kernel), there_and_back(x, factor), x + noise, jpeg(x, first_quality))
            x = torch.stack(faulty)[order[:, place], sample]
        return {**batch, self.image_field: jpeg(x, last_quality).to(given.dtype)}


def gaussian_kernel(
    first: Float[Tensor, " b"], second: Float[Tensor, " b"], angle: Float[Tensor, " b"], size: int
) -> Float[Tensor, "b k k"]:
    """Gaussians with two standard deviations, the first along the angle from the horizontal; each sums to 1."""
    offsets = torch.arange(size, device=first.device, dtype=first.dtype) - size // 2
    first, second, angle = (value.reshape(-1, 1, 1) for value in (first, second, angle))
    along = offsets * angle.cos() + offsets[:, None] * angle.sin()
    across = offsets[:, None] * angle.cos() - offsets * angle.sin()
    tiny = 1e-3  # a kernel that changes nothing
    kernel = torch.exp(-0.5 * ((along / first.clamp(min=tiny)) ** 2 + (across / second.clamp(min=tiny)) ** 2))
    return kernel / kernel.sum((1, 2), keepdim=True)


def blur(x: Float[Tensor, "b c h w"], kernel: Float[Tensor, "b k k"]) -> Float[Tensor, "b c h w"]:
    """Blur each image with its own kernel; edges are replicated."""
    b, c, h, w = x.shape
    radius = kernel.shape[1] // 2
    padded = F.pad(x, [radius] * 4, mode="replicate").reshape(1, b * c, h + 2 * radius, w + 2 * radius)
    return F.conv2d(padded, kernel.repeat_interleave(c, 0)[:, None], groups=b * c).reshape(x.shape)


def there_and_back(x: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Make each image smaller by its own factor, with antialiasing, and as large as before, both bilinear."""
    rows, columns = (_there_and_back(side, factor)[:, None] for side in x.shape[2:])
    return rows @ x @ columns.mT


def _there_and_back(n: int, factor: Tensor) -> Tensor:
    """The matrices of that for n values, ``[b, n, n]``: of a smaller number m of values only m are used."""
    m = (n / factor).round().clamp(1, n).reshape(-1, 1, 1)
    index = torch.arange(n, device=factor.device, dtype=factor.dtype)
    small, large = index[:, None], index
    down = (1 - ((large + 0.5) * m / n - (small + 0.5)).abs()).clamp(min=0)
    down = down / down.sum(2, keepdim=True).clamp(min=1e-12)
    position = ((large[:, None] + 0.5) * m / n - 0.5).clamp(min=0).minimum(m - 1)
    up = (1 - (position - index).abs()).clamp(min=0)
    return up @ down
