"""Files and folders that are on the disk whole or not at all."""

import ctypes
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``, which takes its place when all in it is written and flushed.

    A process that dies at any moment leaves what was there, or what is new, see ``replace_folder``. Without an error,
    what was in ``folder`` is gone.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.tmp-{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            flush(path)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Let ``new``, which lies on the same disk, take the place of ``folder``; what was there is deleted.

    Linux exchanges two folders in one step, on its own file systems. Elsewhere, as over NFS, there is a moment in which
    what was in ``folder`` has another name, by which ``surviving_folder`` finds it.
    """
    if (kept := surviving_folder(folder)) != folder:
        kept.rename(folder)
    old = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex}")
    if folder.exists() and _exchange(new, folder):
        old = new
    else:
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    flush(folder.parent)
    for path in (old, *_older(folder)):
        shutil.rmtree(path, ignore_errors=True)


def surviving_folder(folder: Path) -> Path:
    """``folder``, or if a process died while it was replaced, what was there before, under the name that it has now."""
    return folder if folder.exists() else max(_older(folder), key=lambda path: path.stat().st_mtime, default=folder)


def _older(folder: Path) -> list[Path]:
    return [*folder.absolute().parent.glob(f".{glob.escape(folder.absolute().name)}.old-*")]


def _exchange(left: Path, right: Path) -> bool:
    """Exchange the names of two folders in one step, and say whether system and disk can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(left.absolute()), here, os.fsencode(right.absolute()), exchange) == 0


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A temporary path beside ``file``, which takes its place when it is written and flushed."""
    file = file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp-{uuid.uuid4().hex}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(file)
        flush(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as JSON, whole or not at all."""
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def check_vacant(folder: Path) -> None:
    """Raise a ``FileExistsError`` if there is something in a folder that is to be written."""
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} has files, which would be lost; give a folder of its own")


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The hash of the names, types, shapes and bytes of tensors, in whatever order they come."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
