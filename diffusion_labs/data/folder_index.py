"""Which images a folder holds, and what is said about each."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_labs.data.class_numbers import Label
from diffusion_labs.data.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
METADATA = "metadata.jsonl"


class Entry(NamedTuple):
    """One image: its path, its class and caption where there are any, and the place that says so."""

    path: Path
    label: Label | None
    caption: str | None
    source: str


def list_images(root: Path, *, follow_links: bool = False) -> list[Entry]:
    """List the images of a folder, by its ``metadata.jsonl`` if there is one, else by walking it.

    Args:
        root: the folder.
        follow_links: also take files that symbolic links lead to outside ``root``.

    Returns:
        The entries: in the order of ``metadata.jsonl``, or sorted by path, on every machine alike.

    Raises:
        DataError: if the folder is missing or holds no images, or ``metadata.jsonl`` is malformed.
    """
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root}: {problem}; give the folder that holds the images")
    metadata = root / METADATA
    entries = _from_metadata(root, metadata, follow_links) if metadata.is_file() else _from_folders(root, follow_links)
    if not entries:
        where = metadata if metadata.is_file() else root
        raise DataError(f"{where}: lists no images; add some ({', '.join(sorted(SUFFIXES))}), or give another folder")
    return entries


def _from_folders(root: Path, follow_links: bool) -> list[Entry]:
    """Every image under ``root``; its class is its first sub-folder, unless all lie in ``root`` itself."""
    paths = sorted(_walk(root, follow_links), key=lambda path: path.relative_to(root).as_posix())
    loose = [path for path in paths if path.parent == root]
    if 0 < len(loose) < len(paths):
        raise DataError(
            f"{root}: {len(loose)} images, such as {loose[0].name}, lie beside the class folders; "
            f"move them into one, or name the classes in {METADATA}"
        )
    return [Entry(path, None if loose else path.relative_to(root).parts[0], None, source=str(path)) for path in paths]


def _walk(root: Path, follow_links: bool) -> Iterator[Path]:
    real_root = root.resolve()
    for folder, folders, names in os.walk(root, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            if not (path.is_file() or path.is_symlink()):
                continue  # opening a pipe would wait for ever; a broken link is an image that cannot be read
            if not follow_links and path.is_symlink() and not path.resolve().is_relative_to(real_root):
                raise DataError(f"{path}: is a link out of {root}; if you trust it, pass follow_links=True")
            yield path


def _from_metadata(root: Path, metadata: Path, follow_links: bool) -> list[Entry]:
    try:
        lines = metadata.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{metadata}: cannot be read as UTF-8 text ({error}); save it again as UTF-8") from error
    real_root = root.resolve()
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source = f"{metadata}, line {number}"
        entry = _parse_line(root, line, source)
        try:
            resolved = entry.path.resolve()
            exists = resolved.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # too long, not encodable, a loop of links
            raise DataError(f"{source}: {str(entry.path)!r} is not a usable path ({error}); correct it") from error
        if not follow_links and not resolved.is_relative_to(real_root):
            raise DataError(f"{source}: {entry.path} leads out of {root}; if you trust it, pass follow_links=True")
        if not exists:
            raise DataError(f"{source}: there is no file {entry.path}; add it, or remove the line")
        if entries:
            check_alike(entries[0], entry)
        entries.append(entry)
    return entries


def _parse_line(root: Path, line: str, source: str) -> Entry:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: is not JSON ({error}); write one object per line") from error
    if not isinstance(record, dict):
        raise DataError(f'{source}: is not an object; write {{"file_name": "...", ...}}')
    name = record.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{source}: file_name is {name!r}; it must be the path of an image, relative to {root}")
    if Path(name).is_absolute() or ".." in Path(name.replace("\\", "/")).parts:
        raise DataError(f"{source}: file_name {name!r} leads out of {root}; use paths inside it, without '..'")
    label = one_of(record, ("class", "label"), (int, str), "an integer or a name", source)
    caption = one_of(record, ("caption", "text"), (str,), "a string", source)
    return Entry(root / name, label, caption, source)


def one_of(record: dict[str, Any], keys: tuple[str, str], types: tuple[type, ...], what: str, source: str) -> Any:
    """The value under either key, or ``None`` where neither is there."""
    present = [key for key in keys if key in record]
    if len(present) == 2 and record[keys[0]] != record[keys[1]]:
        raise DataError(f"{source}: has both {keys[0]!r} and {keys[1]!r}, which differ; keep one")
    if not present:
        return None
    value = record[present[0]]
    if not isinstance(value, types) or isinstance(value, bool):
        raise DataError(f"{source}: {present[0]!r} is {value!r}; it must be {what}")
    return value


def check_alike(first: Entry, entry: Entry) -> None:
    """A batch needs the same keys from every sample, and classes must be all numbers or all names."""
    if type(first.label) is not type(entry.label):
        raise DataError(
            f"{entry.source}: class is {entry.label!r}, but in {first.source} it is {first.label!r}; "
            "give every line a class, all of them integers or all names, or none"
        )
    if (first.caption is None) is not (entry.caption is None):
        raise DataError(
            f"{entry.source}: caption is {entry.caption!r}, but in {first.source} it is {first.caption!r}; "
            'give every line a caption ("" for an empty one), or none'
        )
