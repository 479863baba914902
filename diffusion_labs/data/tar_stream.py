"""WebDataset tars of images, read as a stream."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from diffusion_labs.data.batches import Batch, collate
from diffusion_labs.data.class_numbers import class_number, numbered
from diffusion_labs.data.damage import Damage
from diffusion_labs.data.decode import MAX_PIXELS, decode_image
from diffusion_labs.data.errors import DataError, UnavailableError
from diffusion_labs.data.fingerprint import fingerprint, some
from diffusion_labs.data.image_source import ImageSource, check_options
from diffusion_labs.data.remote_file import is_url, shown
from diffusion_labs.data.tar_files import open_tar, tar_names
from diffusion_labs.data.tar_members import MAX_BYTES, SampleFiles, content, read_tar


class EncodedSample(NamedTuple):
    """A sample whose image is not decoded yet.

    Attributes:
        source: what to call it in an error.
        image: the bytes of the file.
        fields: the others.
    """

    source: str
    image: bytes
    fields: dict[str, Any]


class TarStream(ImageSource):
    """Images in WebDataset tars on a disk or behind http(s), read from start to end, for ``StreamBatches``.

    A sample is an image with a ``.txt`` (its caption), a ``.cls`` (the number of its class) or a ``.json`` (an object
    with any of ``caption`` or ``text``, ``class`` or ``label``) of the same name beside it, as for ``TarImages``. A
    batch is ``{"x": uint8 [b, c, size, size]}``, with ``"caption"`` (list of str) and ``"class"`` (int64 ``[b]``) where
    they are asked for. Nothing is unpacked, and no name or link in a tar is followed.

    With ``on_error="skip"`` damage is warned of and counted, and reading ends when it is more than a tenth of some
    hundred samples. What a process sees does not depend on how many there are: a sample whose files or texts are
    damaged is left out by every process alike, and so is a damaged tar from there on; in place of an image that cannot
    be decoded comes the next good one of the same global batch, whichever process's share that is in. A tar that cannot
    be reached is always an error, after some attempts, as another process may reach it.

    Args:
        tars: paths, folders, patterns or URLs, with ranges: ``"https://example.org/part-{000..127}.tar"``.
        size: height and width of the images, see ``decode_image``.
        captions: whether there is a ``"caption"``, which each sample must have then.
        num_classes: if given there is a ``"class"``, and labels are 0..num_classes-1.
        class_names: likewise, the classes in the order of their numbers.
        class_key: what the class is called in a ``.json``.
        channels: 3 for RGB, 1 for grey.
        on_error: ``"raise"`` or ``"skip"``.
        max_pixels: images with more are damage; they are never decoded.
        max_bytes: so are larger files of images; they are never read into memory.

    Attributes:
        tars: their paths and URLs.
        reading: what this process has seen in the tars, and skipped.
        decoding: of what it has decoded, likewise.

    Raises:
        DataError: for an argument out of range or no tars; when reading, for damage.
        UnavailableError: when reading, if a tar cannot be reached.

    Example:
        >>> stream = TarStream("shards/part-*.tar", size=64, captions=False, num_classes=1000)
    """

    def __init__(
        self,
        tars: str | Path | Sequence[str | Path],
        size: int,
        *,
        captions: bool = True,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        class_key: str = "class",
        channels: int = 3,
        on_error: str = "raise",
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        check_options(size, channels, on_error, num_classes, class_names)
        self.tars = tar_names(tars)
        self.size = size
        self.channels = channels
        self.captions = captions
        self.class_names = tuple(map(str, range(num_classes or 0))) if class_names is None else tuple(class_names)
        self.class_key = class_key
        self.max_pixels = max_pixels
        self.max_bytes = max_bytes
        self.reading = Damage(on_error)
        self.decoding = Damage(on_error)
        self._numbers = numbered(self.class_names)

    def __len__(self) -> int:
        return len(self.tars)

    def fingerprint(self) -> str:
        """Of the names of the tars, the sizes of some that are on a disk, and the classes; not of where they are."""
        names = [PurePosixPath(shown(tar)).name for tar in self.tars]
        chosen = [Path(self.tars[number]) for number in some(len(self)) if not is_url(self.tars[number])]
        sizes = [path.stat().st_size if path.exists() else 0 for path in chosen]
        return fingerprint((*names, sizes, self.class_names, self.captions))

    def read(self, shard: int) -> Iterator[EncodedSample]:
        """The good samples of a tar, in its order."""
        tar = self.tars[shard]
        with open_tar(tar) as file:
            yield from read_tar(
                file,
                shown(tar),
                "r|",
                content,
                self._sample,
                self.reading,
                class_key=self.class_key,
                max_bytes=self.max_bytes,
            )

    def decode(self, samples: Sequence[EncodedSample], chosen: range) -> Batch:
        """The batch of the chosen samples of a global batch, of which good ones stand in for damaged ones."""
        return collate([self._decoded([*samples[index:], *samples[:index]]) for index in chosen])

    def _decoded(self, candidates: Sequence[EncodedSample]) -> dict[str, Any]:
        """The first candidate, or if it is damaged the next good one."""
        for number, sample in enumerate(candidates):
            try:
                x = decode_image(
                    io.BytesIO(sample.image),
                    self.size,
                    channels=self.channels,
                    max_pixels=self.max_pixels,
                    name=sample.source,
                )
            except UnavailableError:
                raise
            except DataError as error:
                if number == 0:
                    self.decoding.bad(error)
            else:
                if number == 0:
                    self.decoding.good()
                return {"x": x, **sample.fields}
        raise DataError(f"not one of a batch of {len(candidates)} can be decoded, from {candidates[0].source} on")

    def _sample(self, files: SampleFiles[bytes]) -> EncodedSample:
        fields: dict[str, Any] = {}
        if self.captions:
            if files.caption is None:
                raise DataError(f"{files.source}: has no caption; add a .txt, or a .json with it, or ask for none")
            fields["caption"] = files.caption
        if self.class_names:
            if files.label is None:
                raise DataError(f"{files.source}: has no class; add a .cls, or a .json with it, or ask for none")
            fields["class"] = class_number(files.label, self._numbers, lambda: files.source)
        return EncodedSample(files.source, files.image, fields)
