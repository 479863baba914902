"""Pictures between the model and the page."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffusion_labs.images import image_grid, line_plot, write_picture
from diffusion_labs.recipes.known import Known

SIDE = 480  # pixels of a picture on the page, or a few less
GAP = 0.75  # the grey between pictures, so that white ones do not fuse


def shown(images: Tensor, *, padding: int = 1) -> Any:
    """Pictures ``[n, c, h, w]`` side by side, each pixel a square: uint8 ``[h, w, 3]``."""
    grid = image_grid(images, padding=padding, background=GAP)
    scale = max(1, SIDE // max(grid.shape[:2]))
    return grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy()


def kept(picture: Any, folder: Path, name: str = "picture.png") -> str:
    """The file of a picture, in a folder: it is there whole, and never written again, so that browsers can read it.

    Args:
        picture: uint8 ``[h, w, 3]``, or with opacity, ``[h, w, 2]`` or ``[h, w, 4]``.
        folder: where all pictures are, each in a folder named by what it shows.
        name: of the file.
    """
    file = folder / hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest() / name
    if not file.exists():
        write_picture(file, Image.fromarray(picture).save)
    return str(file)


def known_of(editor: Any, shape: tuple[int, int, int]) -> Known:
    """What was drawn in an image editor: of an image of other sides, the middle; what is transparent is white.

    Args:
        editor: the value of Gradio's ``ImageEditor``: the image, and layers on which the mask was drawn.
        shape: ``(channels, height, width)`` of the model's images.

    Raises:
        ValueError: without an image, or a mask.
    """
    channels, height, width = shape

    def fitted(image: Image.Image) -> Any:
        return ImageOps.fit(image, (width, height), Image.Resampling.BOX)

    background = (editor or {}).get("background")
    image = Image.fromarray(numpy.zeros((1, 1, 4), dtype=numpy.uint8) if background is None else background)
    on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if numpy.all(numpy.array(on_white) == 255):  # as an empty canvas is
        raise ValueError("there is no picture; draw one, or upload one")
    mask = torch.zeros(height, width)
    for layer in editor.get("layers") or []:
        drawn = fitted(Image.fromarray(layer).getchannel("A"))
        mask = torch.maximum(mask, (torch.from_numpy(numpy.array(drawn)) > 127).float())
    if not mask.any():
        raise ValueError("nothing is marked; draw over the part of the picture that is to be made anew")
    pixels = torch.from_numpy(numpy.array(fitted(on_white.convert("L" if channels == 1 else "RGB"))))
    return Known(pixels.view(height, width, channels).permute(2, 0, 1).float() / 127.5 - 1, mask)


def plot(found: dict[str, list[tuple[int, float]]]) -> Any:
    """Errors against calls of the network, uint8 ``[h, w, 3]``."""
    series = {name: ([x for x, _ in points], [y for _, y in points]) for name, points in found.items()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "errors.png"
        line_plot(
            path,
            series,
            "Distance to the picture of many steps",
            x_label="calls of the network",
            y_label="root mean square difference (black to white is 2)",
            log_x=True,
            log_y=True,
            smoothing=1,
        )
        return numpy.array(Image.open(path).convert("RGB"))
