"""MNIST and every data set in its format: Fashion-MNIST, KMNIST, EMNIST, QMNIST, or your own."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_labs.data.class_numbers import number_classes
from diffusion_labs.data.errors import DataError
from diffusion_labs.data.idx import read_idx
from diffusion_labs.data.tensor_images import TensorImages

SPLIT_NAMES = {"train": ("train",), "test": ("t10k", "test")}
FILE_NAME = re.compile(
    r"(?P<name>.*?)[-_]?(?P<split>train|t10k|test)[-_](?P<kind>images|labels)[-._]idx(?P<rank>\d)-(ubyte|int)(\.gz)?"
)


class IDXImages(TensorImages):
    """Images and labels in the IDX files of MNIST, Fashion-MNIST, KMNIST, EMNIST and QMNIST.

    The folder holds, for each split, a file of images and one of labels, plain or gzip, under any of
    the names in use: ``train-images-idx3-ubyte.gz``, ``train-images.idx3-ubyte``,
    ``emnist-letters-train-images-idx3-ubyte.gz``, ``qmnist-train-labels-idx2-int.gz``; the test split is
    called ``t10k`` or ``test``. Where a file is there both plain and as gzip, the plain one is read.

    Pixels stay as the files have them (EMNIST's images lie on their side: it stores them by column).
    Classes are numbered from 0 in the order of the labels found in both splits, so EMNIST's letters,
    labelled 1 to 26, become 0 to 25; ``class_names`` keeps the files' labels.

    Args:
        data_dir: the folder.
        split: ``"train"`` or ``"test"``.
        size: height and width of the images. Smaller images are centred on black; larger ones are
            first scaled down by area averaging. ``None`` keeps the files' size.
        num_classes: if given, the labels must be 0..num_classes-1, or 1..num_classes.
        name: which data set, where the folder holds several: what stands before ``train`` or ``t10k`` in
            the file names, as ``"emnist-letters"``.

    Raises:
        DataError: if the folder or a file is missing, files are malformed or do not belong together,
            several data sets fit, or a label is out of range.
    """

    def __init__(
        self,
        data_dir: str | Path,
        split: str = "train",
        *,
        size: int | None = None,
        num_classes: int | None = None,
        name: str | None = None,
    ) -> None:
        if split not in SPLIT_NAMES:
            raise DataError(f"split is {split!r}; choose 'train' or 'test'")
        if size is not None and size < 1:
            raise DataError(f"size is {size}; give a positive number of pixels")
        folder = Path(data_dir).expanduser()
        files = _find_files(folder)
        pair = _one_pair(folder, files, split, name)

        images = _read_images(pair.images)
        labels = _read_labels(pair.labels)
        if len(images) != len(labels):
            raise DataError(
                f"{pair.images} holds {len(images)} images, but {pair.labels.name} holds {len(labels)} "
                "labels; the files do not belong together: fetch both again"
            )
        elsewhere = _labels_of_other_splits(files, pair, split)
        found = {*labels.unique().tolist(), *elsewhere}
        numbers, class_names = number_classes(
            labels.tolist(),
            lambda position: f"{pair.labels}, item {position}",
            class_names=None if num_classes is None else _allowed_labels(found, num_classes),
            also_present=elsewhere,
        )
        images = images.unsqueeze(1)
        super().__init__(images if size is None else fit_square(images, size), numbers, class_names)


def fit_square(images: Tensor, size: int) -> Tensor:
    """Fit uint8 images ``[n, c, h, w]`` into a square: shrink by area if too large, centre on black."""
    height, width = images.shape[-2:]
    scale = size / max(height, width)
    if scale < 1:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        images = torch.cat(
            [
                F.interpolate(part.float(), (height, width), mode="area").round().to(torch.uint8)
                for part in images.split(4096)
            ]
        )
    top, left = (size - height) // 2, (size - width) // 2
    return F.pad(images, (left, size - width - left, top, size - height - top))


class _File(NamedTuple):
    path: Path
    name: str
    split: str
    kind: str


class _Pair(NamedTuple):
    name: str
    split: str
    images: Path
    labels: Path


def _find_files(folder: Path) -> list[_File]:
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {problem}; give the folder that holds the IDX files")
    found: dict[tuple[str, str, str], _File] = {}
    for path in sorted(folder.iterdir()):  # a plain file sorts before its gzip, and is kept
        match = FILE_NAME.fullmatch(path.name)
        if match and path.is_file():
            key = match["name"], match["split"], match["kind"]
            found.setdefault(key, _File(path, *key))
    return list(found.values())


def _one_pair(folder: Path, files: list[_File], split: str, name: str | None) -> _Pair:
    """The pair of files of this split, or an error that says what is there instead."""
    names = SPLIT_NAMES[split]
    candidates = [file for file in files if file.split in names and name in (None, file.name)]
    keys = list(dict.fromkeys((file.name, file.split) for file in candidates))
    if not keys:
        present = ", ".join(file.path.name for file in files) or _nearby(folder)
        wanted = f"{name + '-' if name else ''}{names[0]}-images-idx3-ubyte[.gz]"
        raise DataError(f"{folder}: holds no {split} images such as {wanted}; it holds {present}")
    if len(keys) > 1:
        listed = ", ".join(file.path.name for file in candidates)
        raise DataError(
            f"{folder}: several data sets have a {split} split: {listed}; "
            "pass name= to choose one, or give each its folder"
        )
    paths = {file.kind: file.path for file in candidates}
    for kind, rank in (("images", 3), ("labels", 1)):
        if kind not in paths:
            (other,) = paths.values()
            raise DataError(
                f"{folder}: has {other.name}, but not the {kind} that belong to it; "
                f"add {keys[0][1]}-{kind}-idx{rank}-ubyte[.gz], named like it"
            )
    return _Pair(*keys[0], images=paths["images"], labels=paths["labels"])


def _nearby(folder: Path) -> str:
    deeper = next((path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/*images?idx3-ubyte*")), None)
    return "no IDX files" if deeper is None else f"no IDX files itself, but {deeper.parent} does: give that folder"


def _read_images(path: Path) -> Tensor:
    images = read_idx(path)
    if images.ndim != 3 or images.dtype != torch.uint8:
        raise DataError(f"{path}: images must be bytes [n, height, width], got {_described(images)}; use another file")
    return images


def _read_labels(path: Path) -> Tensor:
    """One label per image. QMNIST's label files are ``[n, 8]`` int32, the class first."""
    labels = read_idx(path)
    if labels.ndim == 2 and labels.dtype == torch.int32:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{path}: labels must be bytes [n], got {_described(labels)}; use another file")
    return labels


def _described(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"


def _labels_of_other_splits(files: list[_File], pair: _Pair, split: str) -> list[int]:
    others = {name for names in SPLIT_NAMES.values() for name in names} - set(SPLIT_NAMES[split])
    paths = [file.path for file in files if file.name == pair.name and file.kind == "labels" and file.split in others]
    return [label for path in paths for label in _read_labels(path).unique().tolist()]


def _allowed_labels(found: Iterable[int], num_classes: int) -> list[str]:
    first = 1 if min(found) >= 1 and max(found) == num_classes else 0
    return [str(label) for label in range(first, first + num_classes)]
