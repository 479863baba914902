"""Weights in the files of other libraries. Nothing in a file can run code."""

import json
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

STEM = "diffusion_pytorch_model"
_INERT = ("pytorch_lightning.", "argparse.Namespace")  # classes of callbacks and of options, named beside weights


def read_weights(path: Path, *, within: str = "state_dict") -> dict[str, Tensor]:
    """The tensors of a file: ``.safetensors``, or a pickle of ``torch.save`` (``.ckpt``, ``.bin``, ``.pt``).

    Pickles are read with ``weights_only=True``. The classes of callbacks that PyTorch Lightning's checkpoints name are
    replaced by empty ones, and so are the options of ``argparse``.

    Args:
        path: the file.
        within: of a dict with this key, the weights are what it holds.

    Raises:
        ValueError: for a file that is damaged, or that holds anything but weights.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    try:
        with _inert_classes(path):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise any
        raise ValueError(
            f"{path} holds more than weights, or is damaged, and was not read, as a pickle can run any code; convert "
            f"it to safetensors where you trust it ({type(error).__name__})"  # whose text says how to run the code
        ) from error
    if isinstance(loaded, Mapping) and within in loaded:
        loaded = loaded[within]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} has no dict of tensors, itself or as {within!r}; give a file of weights")
    return dict(loaded)


def read_diffusers_weights(folder: Path, variant: str | None = None) -> dict[str, Tensor]:
    """The tensors of a model of diffusers: safetensors before pickles, one file before several with an index.

    Args:
        folder: has ``diffusion_pytorch_model.*``.
        variant: for example ``"fp16"``, the part of the names before their last dot.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: for an index that names what is not beside it.
    """
    between = "" if variant is None else f".{variant}"
    tried = []
    for kind in ("safetensors", "bin"):
        whole = folder / f"{STEM}{between}.{kind}"
        index = folder / f"{STEM}.{kind}.index{between}.json"
        tried += [whole.name, index.name]
        if whole.is_file():
            return read_weights(whole)
        if index.is_file():
            return _read_shards(index)
    raise FileNotFoundError(f"{folder} has none of {tried}; check the folder and variant ({variant!r})")


def _read_shards(index: Path) -> dict[str, Tensor]:
    weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ValueError(f"{index} names {name!r}, which is no file beside it; get the missing part")
        shard = read_weights(index.parent / name)
        tensors |= {key: value for key, value in shard.items() if weight_map.get(key) == name}
    lost = [key for key in weight_map if key not in tensors]
    if lost:
        raise ValueError(f"{index} lists {lost[:10]}, which its files do not hold; get the files again")
    return tensors


def _inert_classes(path: Path) -> Any:
    """A context in which the names of ``_INERT`` stand for empty classes."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # not a file that can be looked into
        return nullcontext()
    return torch.serialization.safe_globals(
        [(type("Inert", (), {}), name) for name in names if name.startswith(_INERT)]
    )
