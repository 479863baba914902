"""A folder of image files as a data set."""

from pathlib import Path
from typing import Unpack

from diffusion_labs.data.encoded_images import EncodedImages, ImageOptions
from diffusion_labs.data.folder_index import list_images


class ImageFolder(EncodedImages):
    """Images of any kind and size in a folder and its sub-folders: a map-style data set.

    Files are png, jpg, jpeg, webp, bmp and gif. Classes and captions come from ``metadata.jsonl`` in the folder, if it
    is there: one JSON object per line with ``file_name`` and any of ``class`` or ``label`` (an integer or a name),
    ``caption`` or ``text``. Without it, the class of an image is the sub-folder that it lies in.

    Args:
        root: the folder.
        size: height and width of the images.
        follow_links: also read files outside ``root`` that symbolic links in it lead to.
        options: how images are decoded and classes numbered, see ``EncodedImages``.

    Raises:
        DataError: at once for a missing or empty folder, a malformed ``metadata.jsonl`` (with the line),
            a path out of the folder, or a listed file that is not there; else as ``EncodedImages``.
    """

    def __init__(
        self, root: str | Path, size: int, *, follow_links: bool = False, **options: Unpack[ImageOptions]
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, list_images(root, follow_links=follow_links), size, **options)

    def open(self, index: int) -> Path:
        """The path of an image."""
        return self.paths[index]

    def bytes_of(self, index: int) -> int:
        """The size of an image's file; 0 if it is not there."""
        path = self.paths[index]
        return path.stat().st_size if path.exists() else 0
