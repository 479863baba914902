"""What JPEG leaves of images, without files."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# ITU-T T.81, Annex K, Tables K.1 (brightness) and K.2 (colour), at quality 50
BRIGHTNESS = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
COLOUR = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
)
# From RGB to brightness and two colours: ITU-T T.871 (JFIF), section 7
TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
    (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
)
SIDE = 8  # of a block


def jpeg(x: Float[Tensor, "b c h w"], quality: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Compress and decompress images: only the rounding, which is all that is lost.

    Blocks of 8 by 8 pixels become coefficients of cosines, which are rounded to multiples of the tables; of colours,
    those of images of half the size. Deviates from libjpeg by its rounding on the way.

    Args:
        x: images in [-1, 1], with one channel or with RGB.
        quality: of each image, from 1 to 100, as of libjpeg.

    Returns:
        Images of 256 values. They have no gradient.

    Raises:
        ValueError: unless there is one channel, or three.
    """
    channels, height, width = x.shape[1:]
    if channels not in (1, 3):
        raise ValueError(f"x has {channels} channels (shape {list(x.shape)}); JPEG needs 1 (grey) or 3 (RGB)")
    values = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round() - 128
    unit = SIDE * (1 if channels == 1 else 2)
    values = F.pad(values, (0, -width % unit, 0, -height % unit), mode="replicate")

    if channels == 1:
        values = _through_blocks(values, BRIGHTNESS, quality)
    else:
        to_ycc = torch.tensor(TO_YCC, device=x.device)
        colours = torch.einsum("ij,bjhw->bihw", to_ycc, values + 128) - values.new_tensor([128, 0, 0])[:, None, None]
        brightness = _through_blocks(colours[:, :1], BRIGHTNESS, quality)
        halves = _through_blocks(F.avg_pool2d(colours[:, 1:], 2), COLOUR, quality)
        colours = torch.cat([brightness, F.interpolate(halves, scale_factor=2, mode="bilinear")], dim=1)
        values = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), colours)
    values = (values[..., :height, :width] + 128).round().clamp(0, 255)
    return (values / 127.5 - 1).to(x.dtype)


def _through_blocks(values: Tensor, table: tuple[int, ...], quality: Tensor) -> Tensor:
    """Round the coefficients of each block to multiples of the table at a quality; values around 0."""
    b, c, h, w = values.shape
    quality = quality.float()
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)[:, None]
    steps = ((values.new_tensor(table) * scale + 50) / 100).floor().clamp(1, 255)
    steps = steps.reshape(b, 1, 1, SIDE, 1, SIDE)

    cosines = _cosines().to(values)
    blocks = values.reshape(b, c, h // SIDE, SIDE, w // SIDE, SIDE)
    coefficients = torch.einsum("ui,bcyixj,vj->bcyuxv", cosines, blocks, cosines)
    coefficients = (coefficients / steps).round() * steps
    rounded = torch.einsum("ui,bcyuxv,vj->bcyixj", cosines, coefficients, cosines).reshape(b, c, h, w)
    return rounded.round().clamp(-128, 127)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values, ``[frequency, position]``."""
    frequency, position = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    cosines = torch.cos(math.pi / SIDE * (position + 0.5) * frequency) * (2 / SIDE) ** 0.5
    return torch.where(frequency == 0, cosines / 2**0.5, cosines)
