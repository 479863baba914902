"""One process at a time in a folder."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

LOCK = ".lock"
_held: dict[Path, int] = {}  # the thread that has it: a process does not exclude itself by a lock on a file


class InUseError(OSError):
    """A folder in which another process writes; the message says which, and what to do."""


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Let no other process write to a folder meanwhile. The same thread may ask again.

    ``.lock`` in the folder is locked (``fcntl``, over NFS, too), and says who has it; it is empty if nobody has. The
    system unlocks it when the process dies, whatever of. Over a network, some disks pretend to lock, so what a process
    on another host has left is taken over in one case: the same job of Slurm has begun again since.

    Args:
        folder: is made.

    Raises:
        InUseError: if another process is in the folder, or one on another host has not left it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK
    thread = threading.get_ident()
    if _held.get(path) == thread:
        yield
        return
    if path in _held:  # and not opened: to close it would unlock it
        raise InUseError(f"{folder} is in use by another thread of this process; choose another folder")
    with path.open("a+") as file:
        locked = _lock(file)
        holder, myself = _read(file), _myself()
        free = locked is not False and (holder is None or _is_gone(holder, myself, known=locked is True))
        if not (free or (holder is not None and _began_again(holder, myself))):
            raise InUseError(_described(folder, path, holder, alive=locked is False))
        _write(file, json.dumps(myself))
        _held[path] = thread
        try:
            yield
        finally:
            del _held[path]
            with suppress(OSError):
                _write(file, "")


def _lock(file: TextIO) -> bool | None:
    """Whether it is locked now, and not by another process; ``None`` if system or disk cannot lock."""
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):
        return None
    return True


def _read(file: TextIO) -> dict[str, Any] | None:
    """Who has it; ``None`` if nobody, or it was not written to its end."""
    file.seek(0)
    try:
        holder: dict[str, Any] = json.loads(file.read())
        return holder if {"host", "boot", "pid", "since", "job", "restart"} <= holder.keys() else None
    except (ValueError, AttributeError):
        return None


def _write(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _myself() -> dict[str, Any]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return {
        "host": socket.gethostname(),
        "boot": boot,  # containers of a host have it in common
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
    }


def _is_gone(holder: Mapping[str, Any], myself: Mapping[str, Any], *, known: bool) -> bool:
    """Whether the process that had it is dead, where ``known`` says that a living one on this host would show."""
    same_host, same_boot = (holder[key] == myself[key] for key in ("host", "boot"))
    if same_host and not same_boot:
        return True
    return (same_host or bool(same_boot and myself["boot"])) and (known or (same_host and not _lives(holder["pid"])))


def _began_again(holder: Mapping[str, Any], myself: Mapping[str, Any]) -> bool:
    """Whether both are the same job of Slurm, which ends it before it begins it again; a server may not know yet."""
    same: bool = holder["job"] == myself["job"] and holder["restart"] != myself["restart"]
    return bool(holder["job"]) and same


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _described(folder: Path, path: Path, holder: Mapping[str, Any] | None, *, alive: bool) -> str:
    who = "another process" if holder is None else "process {pid} on {host} since {since}".format(**holder)
    if alive:
        return f"{folder} is in use by {who}; wait for its end, or choose another folder"
    return f"{folder} is in use by {who}; if that process is surely dead, remove {path}, else choose another folder"
