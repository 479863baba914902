"""Which images a WebDataset tar holds, and what is said about each."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from diffusion_labs.data.errors import DataError
from diffusion_labs.data.folder_index import SUFFIXES, Entry, check_alike, one_of

TEXT_SUFFIXES = (".txt", ".json", ".cls")


class Extent(NamedTuple):
    """Where the bytes of an image are in a tar."""

    tar: Path
    offset: int
    size: int


def list_tar(tar: Path, class_key: str) -> list[tuple[Entry, Extent]]:
    """List the images of a tar, in its order.

    Files belong to one sample if their names are equal up to the first dot after the last slash: ``a/b.png``,
    ``a/b.txt`` and ``a/b.json`` are one. They are neighbours, as WebDataset asks.

    Args:
        tar: the file, not compressed: images are read from where they are.
        class_key: what the class is called in the ``.json`` of a sample.

    Raises:
        DataError: for a file that is no tar, is compressed or cut short, or for a sample that is malformed.
    """
    try:
        with tarfile.open(tar, "r:") as archive:
            return [_sample(archive, tar, members, class_key) for members in _grouped(archive, tar)]
    except FileNotFoundError as error:
        raise DataError(f"{tar}: there is no such file; check the path") from error
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{tar}: is no whole tar ({error}); decompress it if it is compressed, or get it again"
        ) from error


def _grouped(archive: tarfile.TarFile, tar: Path) -> Iterator[dict[str, tarfile.TarInfo]]:
    """The files of each sample by suffix; samples without an image are left out."""
    name, members = "", dict[str, tarfile.TarInfo]()
    seen: set[str] = set()
    for member in archive:
        if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
            continue
        stem, _, rest = PurePosixPath(member.name).name.partition(".")
        key = str(PurePosixPath(member.name).with_name(stem or "."))
        if key != name:
            if SUFFIXES & members.keys():
                yield members
            if key in seen:
                raise DataError(f"{tar}: the files of {key!r} are not side by side; write the tar sorted by name")
            seen.add(key)
            name, members = key, {}
        members[f".{rest.lower()}"] = member
    if SUFFIXES & members.keys():
        yield members
    _check_end(archive, tar)


def _check_end(archive: tarfile.TarFile, tar: Path) -> None:
    """A tar ends with blocks of zeros; one that was cut between two files does not, and is otherwise well formed."""
    last = archive.getmembers()[-1] if archive.getmembers() else None
    block = tarfile.BLOCKSIZE
    end = 0 if last is None else last.offset_data + -(-last.size // block) * block
    with tar.open("rb") as file:
        file.seek(end)
        if file.read(block) != bytes(block):
            raise tarfile.ReadError(f"it has no end after {last.name if last else 'its start'}")


def _sample(
    archive: tarfile.TarFile, tar: Path, members: dict[str, tarfile.TarInfo], class_key: str
) -> tuple[Entry, Extent]:
    image = next(member for suffix, member in members.items() if suffix in SUFFIXES)
    source = f"{tar}, {image.name}"
    texts = {suffix: _text(archive, members[suffix], source) for suffix in TEXT_SUFFIXES if suffix in members}
    record = _record(texts.get(".json", "{}"), source)
    label = one_of(record, (class_key, "label"), (int, str), "an integer or a name", source)
    if ".cls" in texts:
        label = _class_number(texts[".cls"], source)
    caption = texts.get(".txt", one_of(record, ("caption", "text"), (str,), "a string", source))
    entry = Entry(tar / image.name, label, caption, source)
    return entry, Extent(tar, image.offset_data, image.size)


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, source: str) -> str:
    file = archive.extractfile(member)
    assert file is not None  # it is a regular file
    try:
        return file.read().decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: {member.name} is not UTF-8 text ({error}); save it again as UTF-8") from error


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
        raise DataError(f"{source}: its .cls is {text!r}; it must be an integer") from error


def check_all_alike(entries: list[Entry]) -> None:
    """Raise unless all samples have captions or none has, and all have classes of one kind or none has."""
    for entry in entries[1:]:
        check_alike(entries[0], entry)
