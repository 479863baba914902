"""Models in folders: ``config.json`` says what they are, and ``model.safetensors`` holds the numbers."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_labs.files import sha256, surviving_folder, whole_folder
from diffusion_labs.pretrained.description import TOKENIZER, Described, build
from diffusion_labs.pretrained.names import Components

CONFIG, CARD = "config.json", "README.md"
FORMAT, FORMAT_VERSION = "diffusion_labs", 1
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
FILES = re.compile(rf"{WEIGHTS.pattern}|{TOKENIZER.pattern}/\w[\w.-]*")
ARGUMENT = "argument:"  # before the keys of tensors that are arguments, and not state
_SHOWN = 10  # keys of a kind that an error lists


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    components: Components | None = None,
    about: Mapping[str, Any] | None = None,
    card: str | None = None,
    max_file_size: int = 5 * 1000**3,
) -> None:
    """Write a network, adapter stack, sampler, schedule, predictor or whole system to a folder of its own.

    ``config.json`` is plain data: what the parts are, and the arguments that make them again, as they are now. An
    object that several parts share is one object again. The numbers are in ``model.safetensors``. Nothing in the
    folder is code, or a pickle. It appears whole, or not at all.

    Args:
        model: of the components of diffusion_labs, and the caller's own ones. Whether it is in train mode is not kept.
        folder: is made, or replaced if it holds nothing but such files.
        components: the caller's own classes, builders and functions in the model, by names of the caller's choice. An
            own class keeps its arguments as attributes of the same names, or has ``constructor_arguments()``.
        about: plain data about the model that is kept in ``config.json``, see ``read_about``.
        card: what is written to ``README.md``; see ``model_card``. One that is there stays if ``None``.
        max_file_size: bytes from which the weights are parted into several files.

    Raises:
        ValueError: naming what cannot be described, and what to do; nothing is then written.
        FileExistsError: if there are other files in the folder.

    Example:
        >>> save_pretrained(sampler, "digits")
        >>> images = from_pretrained("digits")(noise)
    """
    folder = Path(folder)
    described = Described(model, components)
    tensors = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    tensors |= {f"{ARGUMENT}{place}": value for place, value in described.tensors.items()}
    before = surviving_folder(folder)
    _check_free(before)
    if card is None and (before / CARD).is_file():
        card = (before / CARD).read_text()
    with whole_folder(folder) as temporary:
        parts = list(_parted(tensors, max_file_size))
        for i, part in enumerate(parts):
            name = "model.safetensors" if len(parts) == 1 else f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
            save_file({key: _plain(value) for key, value in part.items()}, temporary / name, {"format": "pt"})
        for name, tokenizer in described.tokenizers.items():
            tokenizer.save_pretrained(temporary / name)
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "written_by": f"diffusion-labs {version('diffusion-labs')}",
            "files": {
                path.relative_to(temporary).as_posix(): sha256(path)
                for path in sorted(temporary.rglob("*"))
                if path.is_file()
            },
            "model": described.content,
            **({} if about is None else {"about": json.loads(json.dumps(about))}),
        }
        (temporary / CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
        if card is not None:
            (temporary / CARD).write_text(card)


def load_pretrained(folder: Path, components: Components | None = None) -> nn.Module:
    """The model of a folder; see ``from_pretrained``."""
    config = read_config(folder)
    tensors: dict[str, Tensor] = {}
    for name, digest in config["files"].items():
        _check(folder, name, digest)
        if WEIGHTS.fullmatch(name):
            tensors |= _read_weights(folder / name)
    arguments = {key.removeprefix(ARGUMENT): value for key, value in tensors.items() if key.startswith(ARGUMENT)}
    try:
        with torch.random.fork_rng(devices=[]):  # for the numbers that the stored ones take the place of
            model = build(config["model"], arguments, folder, components)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{folder / CONFIG} is nested too deep, so it is damaged") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{folder / CONFIG} describes a {type(model).__name__}, which is no module")
    _fill(model, {key: value for key, value in tensors.items() if not key.startswith(ARGUMENT)}, folder)
    return model.eval()


def _check_free(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give a folder that does not exist yet")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    own = (CONFIG, CARD) if (folder / CONFIG).exists() else ()
    others = [name for name in names if name not in own and not FILES.fullmatch(name)]
    if not others and (folder / CONFIG).exists():
        try:
            read_config(folder)
        except (ValueError, OSError):
            others = [CONFIG]
    if others:
        raise FileExistsError(f"{folder} has {sorted(others)[:_SHOWN]}, which would be lost; give a folder of its own")


def _parted(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in parts of at most ``limit`` bytes, or of one tensor; at least one part."""
    part: dict[str, Tensor] = {}
    size = 0
    for key, tensor in tensors.items():
        if part and size + tensor.nbytes > limit:
            yield part
            part, size = {}, 0
        part[key] = tensor
        size += tensor.nbytes
    yield part


def _plain(tensor: Tensor) -> Tensor:
    """The tensor with memory of its own, which is what safetensors takes."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder that ``save_pretrained`` wrote; see ``from_pretrained`` for the errors."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}; give a folder that save_pretrained wrote")
    try:
        config = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(
            f"{path} was not written by save_pretrained; for folders of diffusers there are load_diffusers_pipeline, "
            "load_diffusers_unet and load_diffusers_autoencoder"
        )
    number = config.get("format_version")
    if not isinstance(number, int) or number > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format_version {number}, written by {config.get('written_by')}; this version reads up to "
            f"{FORMAT_VERSION}: update diffusion-labs"
        )
    files = config.get("files")
    if "model" not in config or not isinstance(files, dict) or not all(map(FILES.fullmatch, files)):
        raise ValueError(f"{path} is damaged: it must have 'model', and 'files' named like model.safetensors")
    return config


def _check(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {name}, which its {CONFIG} lists; get the missing file")
    if sha256(path) != digest:
        raise ValueError(f"{path} is damaged, or of another model: its sha256 is not the one in {CONFIG}; get it again")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Give the model the stored state, in its dtypes; parameters stay the objects that they are."""
    state = model.state_dict(keep_vars=True)
    problems = [
        f"{len(keys)} {what}: {sorted(keys)[:_SHOWN]}{' ...' * (len(keys) > _SHOWN)}"
        for what, keys in (
            ("missing", state.keys() - tensors.keys()),
            ("unexpected", tensors.keys() - state.keys()),
            (
                "of another kind of number",
                {k for k in state.keys() & tensors.keys() if _kind(state[k]) != _kind(tensors[k])},
            ),
            ("of another type than the others of their layer", _mixed(model, tensors)),
            ("of another shape", {k for k in state.keys() & tensors.keys() if state[k].shape != tensors[k].shape}),
        )
        if keys
    ]
    if problems:
        raise ValueError(
            f"the weights in {folder} are not those of the {type(model).__name__} that its {CONFIG} describes: "
            f"{'; '.join(problems)}. Parts that were exchanged after a network was built are not described: build it "
            "with them, or give it to a class of your own"
        )
    for key, tensor in tensors.items():
        # Into memory that torch allocated: on that of a file, which is aligned otherwise, kernels may round differently
        if state[key].dtype == tensor.dtype:
            state[key].data.copy_(tensor)
        else:
            state[key].data = tensor.clone()


def _kind(tensor: Tensor) -> str:
    """Numbers that may take each other's place: what computes in one float does in another, but not in 8 bits."""
    if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return "float"
    return "complex" if tensor.is_complex() else str(tensor.dtype)


def _mixed(model: nn.Module, tensors: Mapping[str, Tensor]) -> set[str]:
    """Parameters whose layer, built with one type, would have several; layers may differ from each other."""
    mixed = set()
    for prefix, layer in model.named_modules():
        own = dict(layer.named_parameters(prefix, recurse=False))
        stored = {key: tensors[key].dtype for key in own if key in tensors and _kind(tensors[key]) == "float"}
        if len({value.dtype for value in own.values()}) == 1 < len(set(stored.values())):
            usual = max(set(stored.values()), key=lambda dtype: (list(stored.values()).count(dtype), dtype.itemsize))
            mixed |= {key for key, dtype in stored.items() if dtype != usual}
    return mixed
