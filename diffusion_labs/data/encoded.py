"""A data set after a network: computed once, kept on disk in shards, read as often as training likes."""

import bisect
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_labs.data.batches import Batch, MapDataset, collate, collect
from diffusion_labs.data.errors import DataError
from diffusion_labs.data.fingerprint import fingerprint
from diffusion_labs.files import sha256, whole_folder, write_json
from diffusion_labs.locking import LOCK, sole_user

INDEX, TENSORS, LISTS = "index.json", "tensors.safetensors", "lists.json"
FILES = {"shards": TENSORS, "lists": LISTS}  # by what their hashes are called in the index; early ones have the first
AGAIN = "delete the shard, and encode again"


class EncodedDataset:
    """What ``encode_dataset`` wrote: a map-style data set of dicts of tensors and strings.

    The tensors of a shard are mapped into memory, and read when a sample is asked for.

    Args:
        folder: of the shards.
        verify: compare the hashes of every shard with those in the index, which reads all of them once.

    Attributes:
        description: the plain data that was given to ``encode_dataset``.

    Raises:
        DataError: if the folder is not complete, or damaged.

    Example:
        >>> batches = Batches(EncodedDataset("runs/ldm-mnist/latents"), batch_size=128)
    """

    def __init__(self, folder: str | Path, *, verify: bool = True) -> None:
        self.folder = Path(folder).expanduser()
        index = _read_json(self.folder / INDEX, "encode the data set again")
        self.description: dict[str, Any] = index["description"]
        self.digests: dict[str, str] = index["shards"]
        self.shards = [
            _read_shard(
                self.folder / name,
                {file: index[kind][name] for kind, file in FILES.items() if kind in index} if verify else {},
            )
            for name in index["shards"]
        ]
        self.ends = list(accumulate(_length(shard) for shard in self.shards))

    def fingerprint(self) -> str:
        """Of the hashes of the shards, and of what they are."""
        return fingerprint((self.description, self.digests))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        shard = bisect.bisect_right(self.ends, index)
        place = index - (self.ends[shard - 1] if shard else 0)
        return {name: values[place] for name, values in self.shards[shard].items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return collate([self[index] for index in indices])


def encode_dataset(
    dataset: MapDataset,
    encode: Callable[[Batch], Batch],
    folder: str | Path,
    *,
    description: Mapping[str, Any],
    batch_size: int = 64,
    shard_size: int = 8192,
    progress: Callable[[int], None] = lambda done: None,
    rank: int = 0,
    world_size: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> EncodedDataset:
    """Encode a data set, shard by shard. A shard is there whole or not at all, so what was interrupted goes on.

    Several processes that all call this share the work: of ``n``, rank ``r`` encodes the shards ``r``, ``r + n``, and
    so on. Shards are the same to the bit for any number of them.

    Args:
        dataset: as for ``Batches``.
        encode: from a batch to a batch of as many samples, of tensors ``[b, ...]`` and lists of strings; pure.
        folder: for the shards, which all processes see; may hold some of them already.
        description: plain data that says what is encoded by what, so that the shards of something else are not taken
            for these; and what readers need to know.
        batch_size: samples encoded at once.
        shard_size: samples in a file.
        progress: told how far in the data set this process is, after each batch and each shard that was there.
        rank: which of the processes this is.
        world_size: how many there are.
        wait: returns when all processes have called it.

    Raises:
        InUseError: if another process encodes into the folder.
        DataError: if the folder holds something else, or ``encode`` returns what cannot be kept.
    """
    folder = Path(folder).expanduser()
    if batch_size < 1 or shard_size < 1:
        raise DataError(f"batch_size ({batch_size}) and shard_size ({shard_size}) must be at least 1")
    told = json.loads(json.dumps({"length": len(dataset), "shard_size": shard_size, "description": dict(description)}))
    starts = range(0, len(dataset), shard_size)
    names = [f"shard-{number:05d}-of-{len(starts):05d}" for number in range(len(starts))]
    with sole_user(folder) if rank == 0 else nullcontext():
        known: dict[str, dict[str, str]] = {}
        if rank == 0:
            _begin(folder, told)
            known = _known_digests(folder)
        wait()
        for name, start in list(zip(names, starts, strict=True))[rank::world_size]:
            end = min(start + shard_size, len(dataset))
            if (folder / name).is_dir():
                progress(end)
            else:
                _write_shard(folder / name, _encoded(dataset, encode, range(start, end), batch_size, progress))
        wait()
        if rank == 0:
            digests = {
                kind: {name: known[kind].get(name) or sha256(folder / name / file) for name in names}
                for kind, file in FILES.items()
            }
            write_json(folder / INDEX, {**told, **digests})
        wait()
    return EncodedDataset(folder, verify=False)


def _begin(folder: Path, told: dict[str, Any]) -> None:
    """Note what the shards will be; or check that those that are there are the same."""
    for name in ("encoding.json", INDEX, "shard-*"):  # of processes that were killed, as this is the only one
        for path in folder.glob(f".{name}.tmp-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    note = folder / "encoding.json"
    if note.exists():
        there = _read_json(note, "delete the folder")
        if there != told:
            raise DataError(
                f"{folder} holds the shards of another data set or encoder; delete it, or give another folder"
            )
    elif any(path.name != LOCK for path in folder.iterdir()):
        raise DataError(f"{folder} holds other files; give a folder of its own")
    else:
        write_json(note, told)


def _known_digests(folder: Path) -> dict[str, dict[str, str]]:
    """The hashes of an index that is there already: shards damaged since then must not pass for whole ones."""
    try:
        index = _read_json(folder / INDEX, "")
    except DataError:
        index = {}
    return {
        kind: {name: digest for name, digest in index.get(kind, {}).items() if (folder / name).is_dir()}
        for kind in FILES
    }


def _encoded(
    dataset: MapDataset,
    encode: Callable[[Batch], Batch],
    indices: range,
    batch_size: int,
    progress: Callable[[int], None],
) -> dict[str, Tensor | list[str]]:
    parts: list[Batch] = []
    for first in range(indices.start, indices.stop, batch_size):
        chosen = range(first, min(first + batch_size, indices.stop))
        part = encode(collect(dataset, chosen))
        for name, value in part.items():
            if len(value) != len(chosen):
                raise DataError(f"encode made {len(value)} of {name!r} for {len(chosen)} samples; make as many")
        parts.append(part)
        progress(chosen.stop)
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, values: list[Any]) -> Tensor | list[str]:
    if all(isinstance(value, Tensor) for value in values):
        return torch.cat([value.detach().cpu() for value in values])
    items = [item for value in values for item in value]
    if not all(isinstance(item, str) for item in items):
        raise DataError(f"encode made {name!r} of {type(items[0]).__name__}; only tensors and strings can be kept")
    return items


def _write_shard(path: Path, fields: Mapping[str, Tensor | list[str]]) -> None:
    with whole_folder(path) as temporary:
        tensors = {name: value.contiguous() for name, value in fields.items() if isinstance(value, Tensor)}
        save_file(tensors, temporary / TENSORS)
        lists = {name: value for name, value in fields.items() if not isinstance(value, Tensor)}
        (temporary / LISTS).write_text(json.dumps(lists))


def _read_shard(path: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a shard, whose files have these hashes."""
    try:
        for file, digest in digests.items():
            if sha256(path / file) != digest:
                raise DataError(f"{path} is damaged: the sha256 of its {file} is not that in {INDEX}; {AGAIN}")
        fields = {**load_file(path / TENSORS), **_read_json(path / LISTS, AGAIN)}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}); {AGAIN}") from error
    lengths = {name: len(values) for name, values in fields.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path} is damaged: its fields have the lengths {lengths}; {AGAIN}")
    return fields


def _length(shard: Mapping[str, Any]) -> int:
    return len(next(iter(shard.values())))


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path.parent} has no {path.name}, so it is not complete; {remedy}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it is no object; {remedy}")
    return content
