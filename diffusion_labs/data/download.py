"""Fetching MNIST."""

import contextlib
import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from diffusion_labs.data.errors import DataError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)


class Content(NamedTuple):
    """What a file must unpack to: its length in bytes and its SHA-256."""

    length: int
    sha256: str


MNIST_FILES = {
    "train-images-idx3-ubyte.gz": Content(
        47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte.gz": Content(60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte.gz": Content(7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte.gz": Content(10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


def download_mnist(
    data_dir: str | Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    files: Mapping[str, Content] = MNIST_FILES,
    timeout: int | float = 20,
) -> Path:
    """Download the four files of MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0; 12 MB) into a folder.

    What the files unpack to is checked by SHA-256, so a mirror may compress them as it likes. A file
    appears under its name only when it is whole and right, so several processes may call this at once.
    Files that are there already are checked and kept.

    Args:
        data_dir: the folder; made if missing.
        mirrors: addresses to try in turn, without the file name.
        files: names and contents.
        timeout: seconds to wait for a mirror that does not answer.

    Returns:
        The folder, for ``IDXImages``.

    Raises:
        DataError: if no mirror has a right file, the folder cannot be written, or another data set's
            file has the name.
    """
    folder = Path(data_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = folder / name
            if not path.exists():
                _write_atomically(path, _fetch(name, content, mirrors, timeout))
            elif problem := _problem(path.read_bytes(), content):
                raise DataError(
                    f"{path}: is there already, but is not MNIST's ({problem}); "
                    "remove it, or choose another folder with --data-dir"
                )
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder with --data-dir"
        ) from error
    return folder


def _fetch(name: str, content: Content, mirrors: Sequence[str], timeout: int | float) -> bytes:
    """The right bytes from the first mirror that has them."""
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                packed = response.read(content.length + 2**16)  # gzip never grows a file by more
        except urllib.error.URLError as error:
            failures.append(f"{url} ({error.reason})")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url} ({error or type(error).__name__})")
        else:
            problem = _problem(packed, content)
            if problem is None:
                return packed
            failures.append(f"{url} ({problem})")
    raise DataError(
        f"cannot download {name}: tried {'; '.join(failures)}. Without a network, copy MNIST's four files "
        f"({', '.join(MNIST_FILES)}) into a folder and pass --data-dir FOLDER"
    )


def _problem(packed: bytes, content: Content) -> str | None:
    """Why the packed bytes are not the wanted content, or ``None``. Unpacks no more than it should hold."""
    try:
        with gzip.GzipFile(fileobj=BytesIO(packed)) as stream:
            unpacked = stream.read(content.length + 1)
    except (EOFError, OSError, zlib.error) as error:
        return f"not a whole gzip file: {error}"
    if len(unpacked) != content.length or hashlib.sha256(unpacked).hexdigest() != content.sha256:
        return "wrong SHA-256 of the content"
    return None


def _write_atomically(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
