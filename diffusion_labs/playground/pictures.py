"""Pictures between the model and the page."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from diffusion_labs.images import image_grid, line_plot, write_picture
from diffusion_labs.recipes.known import Known

SIDE = 480  # pixels of a picture on the page, or a few less


def shown(images: Tensor, *, padding: int = 1) -> Any:
    """Pictures ``[n, c, h, w]`` side by side, each pixel a square: uint8 ``[h, w, 3]``."""
    grid = image_grid(images, padding=padding)
    scale = max(1, SIDE // max(grid.shape[:2]))
    return grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy()


def kept(picture: Any, folder: Path) -> str:
    """The file of a picture, in a folder: it is there whole, and never written again, so that browsers can read it.

    Args:
        picture: uint8 ``[h, w, 3]``, or with opacity, ``[h, w, 2]`` or ``[h, w, 4]``.
        folder: where all pictures are, each in a folder named by what it shows.
    """
    name = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    file = folder / name / "picture.png"
    if not file.exists():
        write_picture(file, Image.fromarray(picture).save)
    return str(file)


def known_of(editor: Any, shape: tuple[int, int, int]) -> Known:
    """What was drawn in an image editor.

    Args:
        editor: the value of Gradio's ``ImageEditor``: the image, and layers on which the mask was drawn.
        shape: ``(channels, height, width)`` of the model's images.

    Raises:
        ValueError: without an image, or a mask.
    """
    if not editor or editor.get("background") is None:
        raise ValueError("there is no picture; draw one, or upload one")
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    image = Image.fromarray(editor["background"]).convert(mode).resize((width, height), Image.Resampling.BOX)
    mask = torch.zeros(height, width)
    for layer in editor.get("layers") or []:
        drawn = Image.fromarray(layer).getchannel("A").resize((width, height), Image.Resampling.BOX)
        mask = torch.maximum(mask, (torch.from_numpy(numpy.array(drawn)) > 127).float())
    if not mask.any():
        raise ValueError("nothing is marked; draw over the part of the picture that is to be made anew")
    pixels = torch.from_numpy(numpy.array(image)).view(height, width, channels).permute(2, 0, 1)
    return Known(pixels.float() / 127.5 - 1, mask)


def plot(found: dict[str, list[tuple[int, float]]]) -> Any:
    """Errors against steps, uint8 ``[h, w, 3]``."""
    series = {name: ([x for x, _ in points], [y for _, y in points]) for name, points in found.items()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "errors.png"
        line_plot(path, series, "Distance to the picture of many steps", x_label="steps", log_y=True, smoothing=1)
        return numpy.array(Image.open(path).convert("RGB"))
