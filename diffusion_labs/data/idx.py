"""Reading one IDX file, the format of MNIST's arrays."""

import gzip
import math
import struct
import sys
import zlib
from io import BufferedIOBase
from pathlib import Path

import torch
from torch import Tensor

from diffusion_labs.data.errors import DataError

MAX_BYTES = 4 * 2**30
DTYPES = {0x08: torch.uint8, 0x0C: torch.int32}
GZIP_MAGIC = b"\x1f\x8b"
GZIP_MAX_RATIO = 1040  # deflate's limit is 1032 bytes out of one byte in
ADVICE = "delete the file and fetch it again"


def read_idx(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Tensor:
    """Read an IDX file, plain or gzip (told apart by content, not by name).

    The format (http://yann.lecun.com/exdb/mnist): two zero bytes, a dtype (0x08: uint8, 0x0C: int32), the
    number of dimensions, each dimension as a big-endian uint32, then the values in row-major order,
    big-endian. The header is checked before anything is allocated, and no more is ever unpacked than
    it announces.

    Args:
        path: the file.
        max_bytes: refuse files that unpack to more.

    Returns:
        The array, in uint8 or int32, with the header's dimensions.

    Raises:
        DataError: if the file is missing, is not IDX, has another dtype, is cut short, holds more than
            its header says, is corrupt, or is too large; the message names the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            stored = path.stat().st_size
            if compressed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    return _read(unpacked, path, limit=stored * GZIP_MAX_RATIO, max_bytes=max_bytes)
            return _read(raw, path, limit=stored, max_bytes=max_bytes)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; check the path") from error
    except EOFError as error:
        raise DataError(f"{path}: the gzip data is cut short; {ADVICE}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is corrupt ({error}); {ADVICE}") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check that it is a readable file"
        ) from error


def _read(stream: BufferedIOBase, path: Path, *, limit: int, max_bytes: int) -> Tensor:
    dtype, shape = _read_header(stream, path)
    size = math.prod(shape) * dtype.itemsize
    claim = f"the header says {' x '.join(map(str, shape))} values of {dtype.itemsize} bytes, {size:,} bytes"
    if size == 0:
        raise DataError(f"{path}: {claim}: the file holds nothing; use another file")
    if size > max_bytes:
        raise DataError(f"{path}: {claim}, over the limit of {max_bytes:,}; if it is right, raise max_bytes")
    if size > limit:
        raise DataError(f"{path}: {claim}, more than the file can hold: it is cut short; {ADVICE}")

    payload = bytearray(size)
    filled = _fill(stream, payload)
    if filled < size:
        raise DataError(f"{path}: {claim}, but only {filled:,} follow: it is cut short; {ADVICE}")
    if stream.read(1):
        raise DataError(f"{path}: {claim}, but more bytes follow; {ADVICE}")

    values = torch.frombuffer(payload, dtype=dtype)
    if dtype.itemsize > 1 and sys.byteorder == "little":
        values = values.view(torch.uint8).view(-1, dtype.itemsize).flip(1).contiguous().view(dtype)
    return values.view(shape)


def _read_header(stream: BufferedIOBase, path: Path) -> tuple[torch.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: has only {len(magic)} bytes, less than an IDX header; {ADVICE}")
    if magic[:2] != b"\0\0" or magic[3] == 0:
        raise DataError(f"{path}: starts with {magic.hex(' ')}, which is not an IDX file; use MNIST's format")
    if magic[2] not in DTYPES:
        raise DataError(
            f"{path}: holds values of IDX type 0x{magic[2]:02x}; only unsigned bytes (0x08) for images and "
            "32-bit integers (0x0c) for labels are read; convert it"
        )
    dimensions = stream.read(4 * magic[3])
    if len(dimensions) < 4 * magic[3]:
        raise DataError(f"{path}: the header is cut short; {ADVICE}")
    return DTYPES[magic[2]], struct.unpack(f">{magic[3]}I", dimensions)


def _fill(stream: BufferedIOBase, payload: bytearray) -> int:
    """Read into ``payload`` until it is full or the stream ends; return the number of bytes read."""
    view, filled = memoryview(payload), 0
    while filled < len(payload):
        count = stream.readinto(view[filled : filled + 2**24])
        if not count:
            break
        filled += count
    return filled
