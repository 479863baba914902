"""What the models of diffusers have in common on disk: a ``config.json`` of checked keys beside the weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_labs.interop.key_rules import KeyRules, load_foreign
from diffusion_labs.interop.weight_files import STEM, read_diffusers_weights

FILE = "config.json"
NOTES = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "sample_size"})

Network = TypeVar("Network", bound=nn.Module)


class ModelConfig:
    """The keys of one class of models, with its defaults; those that ours cannot follow are refused.

    Args:
        given: the configuration.
        sizes: the keys that are read, with the defaults of the class.
        neutral: the keys that are not, with the values at which they do nothing.
        unread: keys that do not change what the network computes.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        sizes: Mapping[str, Any],
        neutral: Mapping[str, tuple[Any, ...]],
        unread: frozenset[str] = frozenset(),
    ) -> None:
        self.name = given["_class_name"]
        self.given = given
        self.sizes = dict(sizes)
        for key, value in given.items():
            if key in sizes:
                self.sizes[key] = value
            elif key in neutral:
                if value not in neutral[key]:
                    raise self.refused(key, f"cannot be represented; it must be one of {list(neutral[key])}")
            elif key not in NOTES and key not in unread:
                raise self.refused(key, "is not known; remove it, if it means nothing")

    def __getitem__(self, key: str) -> Any:
        return self.sizes[key]

    def refused(self, key: str, why: str) -> ValueError:
        """The error that names a key."""
        return ValueError(f"{self.name}: {key}={self.sizes.get(key, self.given.get(key))!r} {why}")

    def choose(self, key: str, table: Mapping[Any, Any]) -> Any:
        """The entry of a table that a key names."""
        if self[key] not in table:
            raise self.refused(key, f"cannot be represented; it must be one of {list(table)}")
        return table[self[key]]

    def choose_each(self, key: str, table: Mapping[Any, Any], length: int) -> list[Any]:
        """The entries of a table that a list names, of which there must be as many as levels."""
        if len(self[key]) != length or any(kind not in table for kind in self[key]):
            raise self.refused(key, f"cannot be represented; it must hold {list(table)}, as many as block_out_channels")
        return [table[kind] for kind in self[key]]

    def number(self, *keys: str) -> None:
        """Refuse keys that are not one number."""
        for key in keys:
            if not isinstance(self[key], int):
                raise self.refused(key, "cannot be represented; it must be one number")


def check_class(given: Mapping[str, Any], name: str) -> None:
    """Raise a ``ValueError`` unless a configuration is that of the one class."""
    if given.get("_class_name") != name:
        raise ValueError(f"_class_name={given.get('_class_name')!r} is not known here; it must be {name!r}")


def refuse_others(actual: Mapping[str, Any], expected: Mapping[str, Any], whose: str) -> None:
    """Raise a ``ValueError`` where settings of a network that no weight shows are others than theirs."""
    wrong = {key: value for key, value in actual.items() if value != expected[key]}
    if wrong:
        raise ValueError(
            f"{whose} computes with { ({key: expected[key] for key in wrong}) }, but the network was built with "
            f"{wrong}; the weights mean something else there"
        )


def find_model(folder: str | Path, names: Sequence[str]) -> Path:
    """The folder with the configuration: itself, or one that a pipeline has in it.

    Raises:
        FileNotFoundError: if there is none.
    """
    for name in ("", *names):
        if (Path(folder) / name / FILE).is_file():
            return Path(folder) / name
    places = repr(names[0]) if len(names) == 1 else f"one of {list(names)}"
    raise FileNotFoundError(f"{folder} has no {FILE}, itself or in {places}; give that of a model or a pipeline")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in a folder."""
    config: dict[str, Any] = json.loads((folder / FILE).read_text())
    return config


def load_model(
    folder: str | Path,
    place: str,
    variant: str | None,
    build: Callable[[Mapping[str, Any]], Network],
    rules: Callable[[Network], KeyRules],
) -> Network:
    """The network that a configuration describes, with the weights that lie beside it.

    Args:
        folder: has both, itself or in ``place``.
        place: where a pipeline has such a network.
        variant: see ``read_diffusers_weights``.
        build: from the configuration to the network.
        rules: between the keys of diffusers and those of the network.

    Raises:
        FileNotFoundError: without such files.
        ValueError: that of ``build``; or listing the weights that do not fit.
    """
    folder = find_model(folder, [place])
    tensors = read_diffusers_weights(folder, variant)
    model = build(read_config(folder))
    load_foreign(model, tensors, rules(model))
    return model


def write_model(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, stem: str = STEM
) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads; stem is the name of the weights."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        Path(folder) / f"{stem}.safetensors",
        {"format": "pt"},
    )
    (Path(folder) / FILE).write_text(json.dumps(config, indent=2) + "\n")
