"""Checkpoints: folders of safetensors and JSON that appear whole or not at all."""

import json
import re
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_labs.files import flush, replace_folder, sha256

MANIFEST = "manifest.json"
STRUCTURE = "structure.json"
NAME = re.compile(r"step-(\d+)")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message names the file and what to do."""


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], keep: int = 3, keep_every: int | None = None
) -> Path:
    """Write ``folder/step-N``, then delete those of earlier steps but for the newest, such that ``keep`` are there.

    Those of later steps, which an interrupted run may have left, stay: see ``set_aside_later``.

    The files are written to a temporary folder and flushed to disk, with a manifest of their sizes and
    hashes, and the folder is renamed. A process that dies at any moment leaves the checkpoints before.

    Args:
        folder: where the checkpoints of a run are.
        step: updates done.
        state: nested dicts, lists and tuples of tensors, numbers, strings, bools and ``None``. The
            tensors below each key of the outermost dict go to a file of their own, ``KEY.safetensors``.
        keep: how many checkpoints to keep, at least 1.
        keep_every: those of multiples of this step are kept, too; none if not given.

    Raises:
        CheckpointError: if it cannot be written; nothing that was there is lost.
    """
    return write_checkpoint(folder, step, snapshot(state), keep, keep_every)


class Snapshot(NamedTuple):
    """A state as it was, which nothing else can change.

    Attributes:
        structure: what there is below each key, with names in place of tensors; JSON.
        tensors: below each key that has any, by name, on the CPU.
    """

    structure: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def snapshot(state: dict[str, Any], *, keep: bool = True) -> Snapshot:
    """Copy a state, tensor after tensor, to the CPU.

    Those that processes have in parts are gathered one at a time, which all processes must ask for; no device needs
    room for a whole model.

    Args:
        state: see ``save_checkpoint``.
        keep: whether this process keeps the copies; else its snapshot has no tensors.

    Raises:
        TypeError: naming what a checkpoint cannot hold.
        ValueError: naming two tensors that would have one name.
    """
    structure, tensors = {}, {}
    for key, value in state.items():
        own: dict[str, Tensor] = {}
        structure[key] = _split(value, key, own, keep)
        if own and keep:
            tensors[key] = own
    return Snapshot(structure, tensors)


def write_checkpoint(folder: Path, step: int, state: Snapshot, keep: int = 3, keep_every: int | None = None) -> Path:
    """``save_checkpoint`` of a state that has been copied."""
    for name, value in (("keep", keep), ("keep_every", keep_every)):
        if value is not None and value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1")
    final = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        _write(temporary, state)
        replace_folder(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder} ({_free(folder)} free): {error}"
        ) from error
    earlier = [path for path in checkpoints(folder) if step_of(path) < step]
    old = [path for path in earlier[: len(earlier) + 1 - keep] if keep_every is None or step_of(path) % keep_every]
    for path in (*old, *folder.glob(".tmp-*")):  # the latter: of killed saves
        shutil.rmtree(path, ignore_errors=True)
    return final


def load_checkpoint(path: Path, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Read a checkpoint, or some keys of its outermost dict. Nothing in it can run code.

    Raises:
        CheckpointError: if a file is missing, truncated or changed since it was written.
    """
    try:
        manifest: dict[str, str] = {STRUCTURE: ""} | json.loads((path / MANIFEST).read_text())
        for name, digest in manifest.items():
            if keys is not None and name != STRUCTURE and Path(name).stem not in keys:
                continue
            if sha256(path / name) != digest:
                raise CheckpointError(f"{path / name} is damaged: its sha256 is not the manifest's")
        structure = json.loads((path / STRUCTURE).read_text())
        chosen = structure if keys is None else {key: structure[key] for key in keys}
        state = {}
        for key, skeleton in chosen.items():
            tensors = load_file(path / f"{key}.safetensors") if f"{key}.safetensors" in manifest else {}
            state[key] = _join(skeleton, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {type(error).__name__}: {error}") from error
    return state


def load_newest(folder: Path, keys: tuple[str, ...] | None = None) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in ``folder`` that is whole, and what is in it; ``None`` if there is no checkpoint.

    One that is damaged is passed over with a warning that says why.

    Raises:
        CheckpointError: if there are checkpoints, but none is whole.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            return path, load_checkpoint(path, keys)
        except CheckpointError as error:
            if path == found[0]:
                raise CheckpointError(f"none of the {len(found)} checkpoints in {folder} is whole: {error}") from error
            warnings.warn(f"{error}; taking the checkpoint before it", stacklevel=2)
    return None


def set_aside_later(folder: Path, step: int) -> None:
    """Rename the checkpoints of the steps after one, which a run goes through again: they are of no run any more.

    They could not be read, which may have passed, so nothing is deleted.
    """
    for path in checkpoints(folder):
        if step_of(path) > step:
            aside = path.rename(path.with_name(f"{path.name}.set-aside-{uuid.uuid4().hex[:8]}"))
            warnings.warn(f"{path} is set aside as {aside.name}, as the run goes on from step {step}", stacklevel=2)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def step_of(path: Path) -> int:
    """The step of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in ``folder``, if any."""
    return next(reversed(checkpoints(folder)), None)


def _free(folder: Path) -> str:
    """The free space of a disk, in words."""
    nearest = next(path for path in (folder, *folder.parents) if path.is_dir())
    return f"{shutil.disk_usage(nearest).free / 2**20:,.0f} MiB"


def _write(folder: Path, state: Snapshot) -> None:
    for key, tensors in state.tensors.items():
        save_file(tensors, folder / f"{key}.safetensors")
    (folder / STRUCTURE).write_text(json.dumps(state.structure))
    manifest = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in folder.iterdir():
        flush(path)
    flush(folder)


def _split(value: Any, name: str, tensors: dict[str, Tensor], keep: bool) -> Any:
    """Copy the tensors of a nested value to ``tensors``, or leave them out, and describe the rest in JSON."""
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    if isinstance(value, Tensor):
        if name in tensors:
            raise ValueError(f"two tensors of the state have the name '{name}' when their keys are joined; rename one")
        tensors[name] = torch.empty(value.shape if keep else 0, dtype=value.dtype, device="cpu")
        if keep:
            tensors[name].copy_(value.detach())
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _split(item, f"{name}.{key}", tensors, keep)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_split(item, f"{name}.{i}", tensors, keep) for i, item in enumerate(value)]
        return {type(value).__name__: items}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"state['{name}'] is a {type(value).__name__}, which a checkpoint cannot hold")


def _join(skeleton: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _join(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_join(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content
