"""From an image file of any kind to a square uint8 tensor."""

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from diffusion_labs.data.errors import DataError, UnavailableError
from diffusion_labs.data.patience import is_of_system

MAX_PIXELS = 64_000_000
MODES = {1: "L", 3: "RGB"}


def check_format(size: int, channels: int) -> None:
    """Raise a ``DataError`` unless there are such images."""
    if size < 1:
        raise DataError(f"size is {size}; give a positive number of pixels")
    if channels not in MODES:
        raise DataError(f"channels is {channels}; choose 3 (RGB) or 1 (grey)")


def decode_image(
    source: str | Path | io.BytesIO,
    size: int,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> UInt8[Tensor, "c size size"]:
    """Decode an image: turned as its EXIF data says, its central square scaled to ``size`` x ``size``.

    Transparency is laid on white; CMYK and palettes become RGB; 16-bit grey becomes 8-bit; of an
    animation the first picture is taken. Scaling is bicubic with antialiasing, and never makes anything
    larger than the result, however long and thin the image is.

    Args:
        source: a file that Pillow can read, by its path or opened.
        size: height and width of the result, in pixels.
        channels: 3 for RGB, 1 for grey.
        max_pixels: images with more are refused by their header, before they are decoded. (Pillow
            only warns up to 179 million.)
        name: of the image, for errors; its path by default.

    Raises:
        DataError: if the file is missing, not an image, cut short, corrupt or too large; the message
            names the file.
        UnavailableError: for an error that is not the file's, such as too many open files, or a disk that fails.
    """
    path = source if name is None else name
    try:
        with Image.open(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"{path}: {width} x {height} pixels are over the limit of {max_pixels:,}; "
                    "shrink the image, or raise max_pixels"
                )
            image.load()
            square = _square(_flatten(ImageOps.exif_transpose(image)), size).convert(MODES[channels])
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; check the path") from error
    except Exception as error:  # decoders fail in many ways on damaged files, and none may end a training run
        if is_of_system(error):
            raise UnavailableError(f"{path}: cannot be read now ({error or 'no memory'}); check the system") from error
        text = str(error)
        for name in (f" {source!r}", f" {str(path)!r}"):
            text = text.replace(name, "")
        reason = text.replace(str(path), "the file") or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}); remove or replace it") from error
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return pixels.view(size, size, channels).permute(2, 0, 1).contiguous()


def _flatten(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel and nothing transparent, in RGB or grey."""
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey image in 8 bits, its transparent value white.

    Pillow's own conversion cuts off at 255 where this divides by 257.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise DataError(f"mode {image.mode} with values {values.min()}..{values.max()} is not 16-bit grey")
    scaled = (values.astype(np.uint32) * 255 + 32767) // 65535
    scaled[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(scaled).convert("L")


def _square(image: Image.Image, size: int) -> Image.Image:
    """The central square, scaled. Cropping by ``box`` keeps thin images from growing on the way."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
