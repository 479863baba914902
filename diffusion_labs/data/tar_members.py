"""The samples of a WebDataset tar, in their order, whatever else the tar holds."""

import json
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Generic, Literal, TypeVar

from diffusion_labs.data.class_numbers import Label
from diffusion_labs.data.damage import Damage
from diffusion_labs.data.errors import DataError, UnavailableError
from diffusion_labs.data.folder_index import SUFFIXES, one_of

TEXT_SUFFIXES = frozenset({".txt", ".json", ".cls"})
MAX_BYTES = 2**25  # of an image
TEXT_BYTES = 2**20  # of a text, and of what extends a header
FILE_BYTES = 2**42  # of a file that is passed over; more is a lie
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *tarfile.GNU_TYPES)

Image = TypeVar("Image")
Sample = TypeVar("Sample")


class SampleFiles(Generic[Image]):
    """The files of one sample.

    Attributes:
        tar: where it is.
        name: of the image in the tar; never a path to open.
        image: the image, as its reader returned it.
        label: its class, where one is given.
        caption: its caption, where one is given.
    """

    def __init__(self, tar: str, name: str, image: Image, texts: Mapping[str, bytes], class_key: str) -> None:
        self.tar, self.name, self.image = tar, name, image
        decoded = {suffix: _decoded(text, suffix, self.source) for suffix, text in texts.items()}
        record = _record(decoded.get(".json", "{}"), self.source)
        label = one_of(record, (class_key, "label"), (int, str), "an integer or a name", self.source)
        self.label: Label | None = _class_number(decoded[".cls"], self.source) if ".cls" in decoded else label
        caption = one_of(record, ("caption", "text"), (str,), "a string", self.source)
        self.caption: str | None = decoded.get(".txt", caption)

    @property
    def source(self) -> str:
        """What to call it in an error."""
        return f"{self.tar}, {self.name}"


def read_tar(
    file: Any,
    tar: str,
    mode: Literal["r:", "r|"],
    image: Callable[[tarfile.TarFile, tarfile.TarInfo], Image],
    sample: Callable[[SampleFiles[Image]], Sample],
    damage: Damage,
    *,
    class_key: str = "class",
    max_bytes: int = MAX_BYTES,
) -> Iterator[Sample]:
    """The good samples of a tar, in its order. Nothing is written, and no name or link in the tar is followed.

    Files belong to one sample if their names are equal up to the first dot after the last slash: ``a/b.png``,
    ``a/b.txt`` and ``a/b.json`` are one. They are neighbours, as WebDataset asks. Those without an image are no sample.

    Args:
        file: the tar, not compressed; opened for reading bytes.
        tar: what to call it in errors.
        mode: of ``tarfile.open``: ``"r|"`` reads the file from its start to its end, ``"r:"`` moves about in it.
        image: reads an image.
        sample: what is made of the files of a sample; raises a ``DataError`` if they are not right.
        damage: what to do with damaged samples, and with the rest of a tar that is damaged or cut.
        class_key: what the class is called in a ``.json``.
        max_bytes: larger images are damage.
    """
    seen: dict[str, bool] = {}  # whether there is an image
    dotted: dict[str, str] = {}
    try:
        for key, members in groupby(_members(file, mode, dotted), lambda pair: _key(pair[1])):
            try:
                files = _files(tar, members, image, max_bytes, class_key)
                if key in seen:
                    raise DataError(f"{tar}: the files of {key!r} are not side by side; write the tar sorted by name")
                seen[key] = files is not None
                if files is None:
                    continue
                found = sample(files)
            except DataError as error:
                damage.bad(error)
                continue
            damage.good()
            yield found
        lost = [name for key, name in dotted.items() if not seen.get(key)]
        if lost:
            warnings.warn(
                f"{tar}: passed over {len(lost)} samples without an image by their name up to the first dot, such as "
                f"{lost[0]}; if these are images, write them without other dots in their names",
                stacklevel=2,
            )
    except tarfile.TarError as error:
        damage.bad(DataError(f"{tar}: is no whole tar ({error}); decompress it if it is compressed, or get it again"))
    except OSError as error:
        raise UnavailableError(f"{tar}: cannot be read ({error}); check the path and the disk") from error


class _Header(tarfile.TarInfo):
    """A header of a tar. A damaged one is an error and not the end of the tar, and none fills the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut short")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):
                raise  # the end
            raise tarfile.ReadError(str(error)) from error
        if header.type == tarfile.GNUTYPE_SPARSE or (header.type in EXTENSIONS and not 0 <= header.size <= TEXT_BYTES):
            raise tarfile.ReadError(f"it has a header of type {header.type!r} and {header.size:,} bytes")
        return header


class _WholeStream:
    """A tar that is read from its start to its end, where reading on is an error: ``tarfile`` would go on for ever."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        if not data:
            raise tarfile.ReadError("it is cut short")
        return data


def _members(
    file: Any, mode: Literal["r:", "r|"], dotted: dict[str, str]
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The files of a tar that may belong to samples; what ``tarfile`` meets in hostile ones is a ``TarError``.

    Others with the last suffix of an image, such as ``a.mask.png``, are put into ``dotted``, by the key of the sample.
    """
    open_archive: Any = tarfile.open  # its types know nothing of ``members``
    try:
        source = file if mode == "r:" else _WholeStream(file)
        with open_archive(fileobj=source, mode=mode, tarinfo=_Header) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # else they are kept, and may be millions
                if not 0 <= member.size <= FILE_BYTES:
                    raise tarfile.ReadError(f"it has a file of {member.size:,} bytes")
                if member.isdir():
                    continue
                suffix = _suffix(member)
                if suffix in SUFFIXES | TEXT_SUFFIXES:
                    yield archive, member
                elif suffix.endswith(tuple(SUFFIXES)):
                    dotted.setdefault(_key(member), _shown(member))
    except (DataError, OSError, tarfile.TarError):
        raise
    except Exception as error:
        raise tarfile.ReadError(f"{type(error).__name__}: {error}") from error


def _files(
    tar: str,
    members: Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]],
    image: Callable[[tarfile.TarFile, tarfile.TarInfo], Image],
    max_bytes: int,
    class_key: str,
) -> SampleFiles[Image] | None:
    """Read the files of a sample, each when it is met; ``None`` if there is no image."""
    images: list[tuple[str, Image]] = []
    texts: dict[str, bytes] = {}
    for archive, member in members:
        name = _shown(member)
        if not member.isreg() or member.issparse():
            raise DataError(f"{tar}, {name}: is a link, a device or sparse; only plain files are read: store it as one")
        is_text = _suffix(member) in TEXT_SUFFIXES
        limit, remedy = (TEXT_BYTES, "") if is_text else (max_bytes, ", or raise max_bytes")
        if member.size > limit:
            size = f"{member.size:,} bytes are over the limit of {limit:,}"
            raise DataError(f"{tar}, {name}: {size}; make it smaller{remedy}")
        if is_text:
            texts[_suffix(member)] = content(archive, member)
        else:
            images.append((name, image(archive, member)))
    return SampleFiles(tar, *images[0], texts, class_key) if images else None


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a regular file."""
    file = archive.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _shown(member: tarfile.TarInfo) -> str:
    return member.name if member.name.isprintable() else ascii(member.name)


def _key(member: tarfile.TarInfo) -> str:
    """The part of the name that the files of a sample share."""
    path = PurePosixPath(member.name)
    return str(path.with_name(path.name.partition(".")[0]))


def _suffix(member: tarfile.TarInfo) -> str:
    """What follows the first dot of the file's name, with the dot; none for hidden files."""
    stem, _, rest = PurePosixPath(member.name).name.partition(".")
    return f".{rest.lower()}" if stem else ""


def _decoded(text: bytes, suffix: str, source: str) -> str:
    try:
        return text.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: its {suffix} is not UTF-8 text ({error}); save it again as UTF-8") from error


def _record(text: str, source: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: its .json is not JSON ({error}); write one object") from error
    if not isinstance(record, dict):
        raise DataError(f"{source}: its .json is not an object; write one")
    return record


def _class_number(text: str, source: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"{source}: its .cls is {text[:40]!r}; it must be an integer") from error
