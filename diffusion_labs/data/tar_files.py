"""Which tars are meant, and opening them."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_labs.data.errors import DataError, UnavailableError
from diffusion_labs.data.remote_file import RemoteFile, is_url

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def tar_names(source: str | Path | Sequence[str | Path]) -> list[str]:
    """The paths and URLs of tars, in order.

    Args:
        source: one or several of: a path; a folder, of which all ``.tar`` are taken; a pattern (``part-*.tar``); an
            http or https URL; any of these with ranges (``part-{000..127}.tar``).

    Raises:
        DataError: if there is nothing on the disk, or an address is of another kind.

    Example:
        >>> tar_names("https://example.org/{0..1}/part-{08..09}.tar")[1:3]
        ['https://example.org/0/part-09.tar', 'https://example.org/1/part-08.tar']
    """
    sources = [source] if isinstance(source, (str, Path)) else source
    names = [name for one in sources for text in _expanded(str(one)) for name in _found(text)]
    if not names:
        raise DataError(f"{source!r} are no tars; give a path, a folder, a pattern or an http(s) URL")
    return names


def open_tar(name: str) -> Any:
    """A tar by its path or URL, to be read."""
    if is_url(name):
        return RemoteFile(name)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UnavailableError(f"{name}: cannot be opened ({error.strerror}); check the path") from error


def _expanded(text: str) -> list[str]:
    """The texts with each number of each range, with leading zeros where the first has them."""
    match = RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    width = len(first) if first.startswith("0") else 0
    numbers = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    return [text[: match.start()] + number + rest for number in numbers for rest in _expanded(text[match.end() :])]


def _found(text: str) -> list[str]:
    if is_url(text):
        return [text]
    if "://" in text or text.startswith("pipe:"):
        raise DataError(f"{text}: only paths and http(s) URLs are read; use one of these")
    path = Path(text).expanduser()
    found = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.exists() else sorted(glob.glob(str(path)))
    if not found:
        raise DataError(f"{text}: there is no such tar; check the path")
    return [str(one) for one in found]
