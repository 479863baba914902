"""WebDataset tars of images as a data set."""

import io
from pathlib import Path
from typing import Unpack

from diffusion_labs.data.damage import Damage
from diffusion_labs.data.encoded_images import EncodedImages, ImageOptions
from diffusion_labs.data.errors import DataError, UnavailableError
from diffusion_labs.data.tar_files import open_tar
from diffusion_labs.data.tar_index import list_tars
from diffusion_labs.data.tar_members import MAX_BYTES


class TarImages(EncodedImages):
    """Images in WebDataset tars on a disk, read from where they lie in the tar: a map-style data set.

    A sample is an image with a ``.txt`` (its caption), a ``.cls`` (the number of its class) or a ``.json`` (an object
    with any of ``caption`` or ``text``, ``class`` or ``label``) of the same name beside it. The tars are listed once,
    which reads their headers and texts, and nothing is unpacked. Having an index, it can be shuffled whole; tars that
    are not on a disk, or too many to list, are read by ``TarStream``.

    With ``on_error="skip"`` samples that are malformed, without a caption or class where the first has one, and what
    follows a fault of a tar, are left out with a warning, until they are more than a tenth.

    Args:
        root: a tar, or a folder of them, which are taken in the order of their names.
        size: height and width of the images.
        class_key: what the class is called in a ``.json``.
        count: only the first samples; all if ``None``.
        max_bytes: larger files of images are damage; they are never read into memory.
        options: how images are decoded and classes numbered, see ``EncodedImages``.

    Raises:
        DataError: at once for a missing, compressed or damaged tar, a folder without tars, or a malformed sample; else
            as ``EncodedImages``.

    Example:
        >>> dataset = TarImages("shards/", size=64, class_key="category")
    """

    def __init__(
        self,
        root: str | Path,
        size: int,
        *,
        class_key: str = "class",
        count: int | None = None,
        max_bytes: int = MAX_BYTES,
        **options: Unpack[ImageOptions],
    ) -> None:
        root = Path(root).expanduser()
        tars = sorted(root.glob("*.tar")) if root.is_dir() else [root]
        damage = Damage(options.get("on_error", "raise"))
        samples = list_tars(tars, damage, class_key=class_key, max_bytes=max_bytes)[:count]
        if not samples:
            raise DataError(f"{root}: holds no images in tars; give a tar of images, or a folder of such")
        self.extents = [extent for _, extent in samples]
        super().__init__(root, [entry for entry, _ in samples], size, **options)

    def open(self, index: int) -> io.BytesIO:
        """The bytes of an image. The tar is opened anew, so workers and threads share no position in a file."""
        tar, offset, size = self.extents[index]
        with open_tar(str(tar)) as file:
            try:
                file.seek(offset)
                return io.BytesIO(file.read(size))
            except OSError as error:
                raise UnavailableError(f"{tar}: cannot be read ({error}); check the path and the disk") from error

    def bytes_of(self, index: int) -> int:
        """The size of an image's file."""
        return self.extents[index].size
