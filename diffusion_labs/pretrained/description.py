"""Components as plain data, and back."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from diffusion_labs.construction import Construction, annotate
from diffusion_labs.pretrained import text_models
from diffusion_labs.pretrained.names import Components, Names

WITHOUT_ARGUMENTS = (object, nn.Module)  # themselves: some packages put another constructor in the latter's place
TOKENIZER = re.compile(r"tokenizer(_\d+)?")


class Described:
    """A description of a component: JSON, and the tensors among the arguments.

    Plain values stand for themselves, and sequences for tuples. All else is a dict with one of these keys:
    ``$type`` or ``$builder``, the name of what is called with ``arguments``, with ``notes`` on it if there are any;
    ``$same_as``, the place of the same object earlier in the description; ``$tensor``, a key; ``$function``;
    ``$partial``; ``$dtype``; ``$float``, one that JSON does not have; ``$pairs``, a dict whose keys are not names;
    ``$transformers``, a model with its ``config``; ``$tokenizer``, the name of its folder.

    Args:
        component: described by the arguments that would make it again. Of a class these are its attributes of the same
            names, or what its method ``constructor_arguments`` returns; of a network what its builder noted.
        components: see ``Names``.

    Attributes:
        content: the JSON.
        tensors: the tensors among the arguments, by their places.
        tokenizers: the tokenizers among them, by the names of their folders.

    Raises:
        ValueError: naming the part that cannot be described, and what to do.
    """

    def __init__(self, component: Any, components: Components | None = None) -> None:
        self.names = Names(components)
        self.places: dict[int, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.tokenizers: dict[str, Any] = {}
        self.content = self._describe(component, "")

    def _describe(self, value: Any, place: str) -> Any:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, torch.dtype):
            return {"$dtype": str(value).removeprefix("torch.")}
        if isinstance(value, Tensor):
            self.tensors[place] = value
            return {"$tensor": place, "parameter": isinstance(value, nn.Parameter)}
        if text_models.is_tokenizer(value):
            name = f"tokenizer_{len(self.tokenizers) + 1}" if self.tokenizers else "tokenizer"
            self.tokenizers[name] = value
            return {"$tokenizer": name}
        if isinstance(value, Mapping | nn.ModuleDict):
            return self._mapping(dict(value), place)
        if isinstance(value, nn.ModuleList) or (
            isinstance(value, Collection) and not isinstance(value, nn.Module | bytes)
        ):
            items = sorted(value) if isinstance(value, set | frozenset) else value
            return [self._describe(item, _join(place, i)) for i, item in enumerate(items)]
        if isinstance(value, functools.partial):
            return {
                "$partial": self._describe(value.func, place),
                "positional": self._describe(value.args, place),
                "arguments": self._arguments(value.keywords, place),
            }
        if inspect.isfunction(value):
            return {"$function": self._named(value, value.__name__, place, "the function")}
        return self._component(value, place)

    def _mapping(self, value: Mapping[Any, Any], place: str) -> Any:
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return self._arguments(value, place)
        items = [[key, item] for key, item in value.items()]
        return {"$pairs": self._describe(items, place)}

    def _arguments(self, value: Mapping[str, Any], place: str) -> dict[str, Any]:
        return {key: self._describe(item, _join(place, key)) for key, item in value.items()}

    def _component(self, value: Any, place: str) -> Any:
        if id(value) in self.places:
            return {"$same_as": self.places[id(value)]}
        if text_models.is_model(value):
            self.places[id(value)] = place
            return {"$transformers": type(value).__name__, "config": text_models.config_of(value)}
        construction: Construction | None = getattr(value, "__dict__", {}).get("construction")  # not of what it wraps
        if construction is not None:
            kind, name = "$builder", construction.builder
            arguments: Mapping[str, Any] = construction.arguments
            self.names.component(name)
        else:
            kind = "$type"
            name = self._named(type(value), type(value).__name__, place, "the class or builder")
            arguments = arguments_of(value, place)
        content = {kind: name, "arguments": self._arguments(arguments, place)}
        if construction is not None and construction.notes:
            content["notes"] = self._arguments(construction.notes, place)
        self.places[id(value)] = place
        return content

    def _named(self, value: Any, shown: str, place: str, what: str) -> str:
        name = self.names.name_of(value)
        if name is None:
            raise ValueError(
                f"{place or 'the model'} is {shown!r} of {value.__module__}, which is not public in "
                f"diffusion_labs, so it cannot be built again by name; give components={{{shown!r}: {what}}} here "
                "and to from_pretrained, take off wrappers such as DDP or torch.compile, and build networks by their "
                "builders"
            )
        return name


def arguments_of(component: Any, place: str = "") -> Mapping[str, Any]:
    """The arguments that would make a component again, by their names.

    Those of a ``**options`` without a type are taken to be passed on to the base class.

    Raises:
        ValueError: naming an argument that the component does not keep, or one without a name.
    """
    hook: Callable[[Any], Mapping[str, Any]] | None = getattr(type(component), "constructor_arguments", None)
    if hook is not None:
        return hook(component)
    owners = [kind for kind in type(component).__mro__ if "__init__" in vars(kind) and kind not in WITHOUT_ARGUMENTS]
    arguments = {}
    for name in _names(owners) if owners else ():
        if not hasattr(component, name):
            what = f"{place or 'the model'}: {type(component).__name__}"
            if name.startswith("*"):
                raise ValueError(
                    f"{what} takes {name}, which no base class names; name the arguments, or write the method "
                    "constructor_arguments(), which returns all of them"
                )
            raise ValueError(
                f"{what} does not keep its argument {name!r}; store it as the attribute {name!r}, or write the method "
                "constructor_arguments(), which returns all of them"
            )
        arguments[name] = getattr(component, name)
    return arguments


def _names(owners: Sequence[type]) -> list[str]:
    """The arguments of the first of some classes; those of its ``**options`` are their type's, or the next class's."""
    names: list[str] = []
    constructor: Callable[..., None] = vars(owners[0])["__init__"]
    for parameter in list(inspect.signature(constructor).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            names.append(f"*{parameter.name}")
        elif parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
        elif options := get_args(parameter.annotation):
            names += options[0].__annotations__
        else:
            passed_on = _names(owners[1:]) if owners[1:] else [f"**{parameter.name}"]
            names += [name for name in passed_on if name not in names]
    return names


def build(content: Any, tensors: Mapping[str, Tensor], folder: Path, components: Components | None = None) -> Any:
    """The component of a description.

    Args:
        content: ``Described.content``.
        tensors: ``Described.tensors``.
        folder: with the folders of ``Described.tokenizers``.
        components: see ``Names``.

    Raises:
        ValueError: naming what is not a component, or cannot be built.
    """
    return _Build(tensors, folder, Names(components)).value(content, "")


class _Build:
    def __init__(self, tensors: Mapping[str, Tensor], folder: Path, names: Names) -> None:
        self.tensors = tensors
        self.folder = folder
        self.names = names
        self.made: dict[str, Any] = {}

    def value(self, content: Any, place: str) -> Any:
        if isinstance(content, list):
            return tuple(self.value(item, _join(place, i)) for i, item in enumerate(content))
        if not isinstance(content, dict):
            return content
        tags = [key for key in content if key.startswith("$")]
        if not tags:
            return self._arguments(content, place)
        read = self._readers.get(tags[0]) if len(tags) == 1 else None
        if read is None:
            raise ValueError(f"{place or 'the model'} has {tags}, which this version does not know; update it")
        try:
            return read(self, content[tags[0]], content, place)
        except (KeyError, TypeError, AttributeError) as error:
            shown = f"{content[tags[0]]!r} cannot be built: {type(error).__name__}: {error}"
            raise ValueError(f"{place or 'the model'}: {shown}") from error

    def _arguments(self, content: Mapping[str, Any], place: str) -> dict[str, Any]:
        return {key: self.value(item, _join(place, key)) for key, item in content.items()}

    def _component(self, name: Any, content: dict[str, Any], place: str) -> Any:
        component = self.names.component(name)
        self.made[place] = component(**self._arguments(content["arguments"], place))
        if "notes" in content:
            annotate(self.made[place], self._arguments(content["notes"], place))
        return self.made[place]

    def _partial(self, function: Any, content: dict[str, Any], place: str) -> Any:
        positional = self.value(content["positional"], place)
        keywords = self._arguments(content["arguments"], place)
        return functools.partial(self.value(function, place), *positional, **keywords)

    def _tensor(self, key: Any, content: dict[str, Any], place: str) -> Tensor:
        tensor = self.tensors[key].clone()
        return nn.Parameter(tensor, tensor.is_floating_point()) if content["parameter"] else tensor

    def _dtype(self, name: Any, content: dict[str, Any], place: str) -> torch.dtype:
        dtype = getattr(torch, name)
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{name!r} is no dtype")
        return dtype

    def _pairs(self, pairs: Any, content: dict[str, Any], place: str) -> dict[Any, Any]:
        return dict(self.value(pairs, place))

    def _model(self, name: Any, content: dict[str, Any], place: str) -> Any:
        self.made[place] = text_models.build_model(name, content["config"])
        return self.made[place]

    def _tokenizer(self, name: Any, content: dict[str, Any], place: str) -> Any:
        if TOKENIZER.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no folder of a tokenizer, which is named like 'tokenizer'")
        return text_models.load_tokenizer(self.folder / name)

    _readers: dict[str, Callable[["_Build", Any, dict[str, Any], str], Any]] = {  # noqa: RUF012
        "$type": _component,
        "$builder": _component,
        "$partial": _partial,
        "$function": lambda self, name, content, place: self.names.function(name),
        "$same_as": lambda self, name, content, place: self.made[name],
        "$tensor": _tensor,
        "$dtype": _dtype,
        "$float": lambda self, text, content, place: float(text),
        "$pairs": _pairs,
        "$transformers": _model,
        "$tokenizer": _tokenizer,
    }


def _join(place: str, name: str | int) -> str:
    return f"{place}.{name}" if place else str(name)
