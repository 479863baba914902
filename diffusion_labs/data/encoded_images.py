"""Images that are decoded when they are asked for."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from diffusion_labs.data.class_numbers import Label, number_classes
from diffusion_labs.data.damage import Damage
from diffusion_labs.data.decode import MAX_PIXELS, decode_image
from diffusion_labs.data.errors import DataError
from diffusion_labs.data.fingerprint import fingerprint, some
from diffusion_labs.data.folder_index import Entry
from diffusion_labs.data.image_source import ImageSource, check_options
from diffusion_labs.data.patience import patiently


class ImageOptions(TypedDict, total=False):
    """The keyword arguments of all such data sets; see ``EncodedImages``."""

    channels: int
    on_error: str
    max_skipped: int | None
    max_pixels: int
    num_classes: int | None
    class_names: Sequence[str] | None


class EncodedImages(ImageSource):
    """Base class of map-style data sets of image files; a child says how an image is opened.

    Images are turned as their EXIF data says, transparency is laid on white, the central square is scaled to
    ``size``. Classes are numbered from 0 in sorted order.

    ``dataset[i]`` is ``{"x": uint8 [c, size, size]}``, with ``"class"`` (int64 []) and ``"caption"`` (str)
    where they are known. ``dataset.__getitems__(indices)`` is the batch: ``[b, c, size, size]``, ``[b]`` and
    a list of strings. With torch's ``DataLoader``, pass ``collate_fn=dict``: the batch is made already.

    Args:
        root: where the images are, for errors.
        entries: what is known about each.
        size: height and width of the images.
        channels: 3 for RGB, 1 for grey.
        on_error: what to do with a file that cannot be decoded: ``"raise"``, or ``"skip"``: warn, count it,
            and put the next good image in its place, so that a batch keeps its size.
        max_skipped: with ``"skip"``, raise when more files than this are bad; when more than a tenth of some hundred
            images are, as for ``TarStream``, if ``None``.
        max_pixels: files with more pixels count as bad; they are never decoded.
        num_classes: if given, integer labels must be 0..num_classes-1.
        class_names: if given, the classes in the order of their numbers, so that a test set without
            some class is numbered as the training set. Other labels are errors.

    Attributes:
        paths: of the images; in a tar, the path of the tar and the name in it.
        damage: how many images this process has read, and skipped.
        skipped: the bad files met so far (in this process) and what is wrong with each.
        class_names: the name of each class; empty if there are no classes.

    Raises:
        DataError: for an argument or a label out of range; when reading, for a bad file with ``"raise"``, and when no
            good file is left with ``"skip"``, or too many are bad.
        UnavailableError: when reading, if the system fails, as without file handles, also after some attempts.
    """

    def __init__(
        self,
        root: Path,
        entries: Sequence[Entry],
        size: int,
        *,
        channels: int = 3,
        on_error: str = "raise",
        max_skipped: int | None = None,
        max_pixels: int = MAX_PIXELS,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        check_options(size, channels, on_error, num_classes, class_names)
        self.root = root
        self.size = size
        self.channels = channels
        self.on_error = on_error
        self.damage = Damage(on_error, max_skipped)
        self.max_pixels = max_pixels
        self.skipped: dict[Path, str] = {}

        self.paths = [entry.path for entry in entries]
        self.captions = [entry.caption for entry in entries if entry.caption is not None]
        self.labels: Tensor | None = None
        self.class_names: tuple[str, ...] = ()
        labels: list[Label] = [entry.label for entry in entries if entry.label is not None]
        if labels:
            if num_classes is not None and isinstance(labels[0], int):
                class_names = [str(number) for number in range(num_classes)]
            self.labels, self.class_names = number_classes(
                labels, lambda position: entries[position].source, class_names=class_names
            )
            if num_classes is not None and len(self.class_names) != num_classes:
                raise DataError(f"{self.root}: has {len(self.class_names)} classes, but num_classes is {num_classes}")

    def open(self, index: int) -> Path | io.BytesIO:
        """The path of an image, or its bytes as a file."""
        raise NotImplementedError(f"{type(self).__name__} must define open")

    def bytes_of(self, index: int) -> int:
        """The size of an image's file; 0 where it is not known."""
        return 0

    def fingerprint(self) -> str:
        """Of names below the root, classes and captions, and the sizes of some files; not of where the root is."""
        names = (path.relative_to(self.root).as_posix() for path in self.paths)
        labels = [] if self.labels is None else self.labels.tolist()
        sizes = [self.bytes_of(index) for index in some(len(self))]
        return fingerprint((*names, labels, self.class_names, self.captions, sizes))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index, x = self._read(range(len(self))[index])
        sample: dict[str, Any] = {"x": x}
        if self.labels is not None:
            sample["class"] = self.labels[index]
        if self.captions:
            sample["caption"] = self.captions[index]
        return sample

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        samples = [self[index] for index in indices]
        batch: dict[str, Any] = {"x": torch.stack([sample["x"] for sample in samples])}
        if self.labels is not None:
            batch["class"] = torch.stack([sample["class"] for sample in samples])
        if self.captions:
            batch["caption"] = [sample["caption"] for sample in samples]
        return batch

    def _read(self, index: int) -> tuple[int, Tensor]:
        """The image at ``index``, or with ``"skip"`` the next good one after it, and its index."""
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            path = self.paths[candidate]
            if path in self.skipped:
                continue
            try:
                image = patiently(partial(self._decoded, candidate))
            except DataError as error:
                self.damage.bad(error)
                self.skipped[path] = str(error)
            else:
                self.damage.good()
                return candidate, image
        last = self.skipped[self.paths[index - 1]]
        raise DataError(f"{self.root}: not one of its {len(self)} images can be read; the last: {last}")

    def _decoded(self, index: int) -> Tensor:
        return decode_image(
            self.open(index),
            self.size,
            channels=self.channels,
            max_pixels=self.max_pixels,
            name=str(self.paths[index]),
        )
