"""Networks remember the sizes from which they were built, so that they can be built again."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

from torch import nn

Arguments = ParamSpec("Arguments")
Network = TypeVar("Network", bound=nn.Module)


class Construction(NamedTuple):
    """How a network was built.

    Attributes:
        builder: the name of the function.
        arguments: all of its arguments: those that were given, and the defaults of the others.
        notes: plain data about the use of the network, by which it computes nothing, such as the ``scaling_factor`` of
            an autoencoder's latents in the format that it was read from. It is kept with the network, and written back.
    """

    builder: str
    arguments: dict[str, Any]
    notes: dict[str, Any] | None = None


def builder(function: Callable[Arguments, Network]) -> Callable[Arguments, Network]:
    """A function from sizes to a network, which now notes on the network what it was built from.

    The note is the attribute ``construction``, which ``save_pretrained`` writes.

    Args:
        function: has named arguments only, which are plain data.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def build(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Network:
        network = function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        vars(network)["construction"] = Construction(function.__name__, _copied(bound.kwargs))
        return network

    vars(build)["notes_construction"] = True
    return build


def annotate(network: nn.Module, notes: Mapping[str, Any]) -> None:
    """Add notes to the construction of a network that a builder made."""
    construction: Construction = vars(network)["construction"]
    kept = {**(construction.notes or {}), **_copied(notes)}
    vars(network)["construction"] = construction._replace(notes=kept)


def notes_of(network: nn.Module) -> dict[str, Any]:
    """The notes on a network; none if it was not made by a builder."""
    construction: Construction | None = vars(network).get("construction")
    return dict(construction.notes or {}) if construction else {}


def is_builder(value: object) -> bool:
    """Whether a function was made by ``builder``."""
    return inspect.isfunction(value) and getattr(value, "notes_construction", False) is True


def _copied(value: Any) -> Any:
    """Plain data in containers of its own, which pickle, and which nobody changes."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return tuple(_copied(item) for item in value)
    return value
