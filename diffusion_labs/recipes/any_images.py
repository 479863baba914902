"""Images on a disk, whatever they are kept in."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_labs.data import DataError, IDXImages, ImageFolder, TarImages
from diffusion_labs.data.batches import collect


class AnyImages(NamedTuple):
    """Some images, and what is said of them.

    Attributes:
        images: ``[n, c, size, size]`` uint8.
        labels: their classes, ``[n]``; ``None`` if there are none.
        captions: theirs; ``None`` if there are none.
        class_names: in the order of their numbers.
    """

    images: Tensor
    labels: Tensor | None
    captions: list[str] | None
    class_names: tuple[str, ...]


def load_images(path: Path, size: int, channels: int, *, count: int | None = None, seed: int = 0) -> AnyImages:
    """Read the images in IDX files, tars or folders; which it is, the names of the files say.

    Args:
        path: a folder of ``*ubyte*`` files, a tar, a folder of tars, or a folder of image files.
        size: height and width of the images.
        channels: 1 or 3.
        count: so many of them, chosen at random; all if there are not more, or if not given.
        seed: of the choice.

    Raises:
        DataError: if there are none, or they cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    dataset: Any
    if path.is_dir() and any("ubyte" in entry.name for entry in path.iterdir()):
        dataset = IDXImages(path, "train", size=size)
        if dataset.image_shape[0] != channels:
            raise DataError(f"{path} has images of {dataset.image_shape[0]} channels, and {channels} are wanted")
    elif path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        dataset = TarImages(path, size, channels=channels)
    else:
        dataset = ImageFolder(path, size, channels=channels)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    batch = collect(dataset, order[:count].sort().values.tolist())
    return AnyImages(batch["x"], batch.get("class"), batch.get("caption"), tuple(dataset.class_names))
