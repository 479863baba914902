"""Which names a description may hold: those of components, and nothing that acts on the world outside."""

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import diffusion_labs
from diffusion_labs.construction import is_builder

ROOT = diffusion_labs.__name__
PUBLIC = frozenset(vars(diffusion_labs)["__all__"])
PACKAGES = ("models", "adapters", "predictors", "schedules", "samplers", "transforms", "losses")
# Modules of functions, from tensors to tensors, that components take as arguments
FUNCTIONS = (*PACKAGES, "randomness", "interop.diffusers_grids")

# Writes files where it is told to; what is saved is the encoder inside of it
NOT_BUILT = frozenset({"CachedTextEncoder"})

Components = Mapping[str, Any]


class Names:
    """The classes, builders and functions that descriptions may name.

    A class or builder is one of the public API that is defined among the components; a function may also be another one
    of their modules, by its module and name. What reads or writes files, trains, or speaks to the hub is none of them.

    Args:
        components: the caller's own classes, builders and functions, by the names that they have in descriptions.
    """

    def __init__(self, components: Components | None = None) -> None:
        self.own = dict(components or {})
        self.own_names = {id(value): name for name, value in self.own.items()}

    def name_of(self, value: Any) -> str | None:
        """The name of a class or function, or ``None`` if it has none that a description may hold."""
        if id(value) in self.own_names:
            return self.own_names[id(value)]
        name = getattr(value, "__name__", "")
        if name in PUBLIC - NOT_BUILT and getattr(diffusion_labs, name) is value and _within(value, FUNCTIONS):
            return name
        if inspect.isfunction(value):
            name = f"{value.__module__.removeprefix(f'{ROOT}.')}.{name}"
            if _function(name) is value:
                return name
        return None

    def component(self, name: object) -> Any:
        """The class or builder of a name.

        Raises:
            ValueError: if it is none.
        """
        found = self.own.get(name) if isinstance(name, str) else None
        if found is None and isinstance(name, str) and name in PUBLIC - NOT_BUILT:
            public = getattr(diffusion_labs, name)
            found = public if _within(public, PACKAGES) and (inspect.isclass(public) or is_builder(public)) else None
        if found is None:
            raise ValueError(
                f"names {name!r}, which is no component of {ROOT}, and was not built; if it is your own, give "
                f"components={{{name!r}: the class or builder}}"
            )
        return found

    def function(self, name: object) -> Any:
        """The function of a name.

        Raises:
            ValueError: if it is none.
        """
        found = self.own.get(name) if isinstance(name, str) else None
        if found is None and isinstance(name, str):
            public = getattr(diffusion_labs, name) if name in PUBLIC else _function(name)
            found = public if inspect.isfunction(public) and _within(public, FUNCTIONS) else None
        if found is None:
            raise ValueError(
                f"names {name!r}, which is no function for components of {ROOT}; if it is your own, give "
                f"components={{{name!r}: the function}}"
            )
        return found


def _within(value: Any, packages: tuple[str, ...]) -> bool:
    module = getattr(value, "__module__", "")
    return any(f"{module}.".startswith(f"{ROOT}.{package}.") for package in packages)


def _function(path: str) -> Any:
    """The function at ``module.name`` below the package, if it is defined there."""
    if re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)+", path) is None:
        return None
    module, _, name = path.rpartition(".")
    if not any(f"{module}.".startswith(f"{package}.") for package in FUNCTIONS):
        return None
    try:
        found = getattr(importlib.import_module(f"{ROOT}.{module}"), name, None)
    except ModuleNotFoundError:
        return None
    return found if inspect.isfunction(found) and found.__module__ == f"{ROOT}.{module}" else None
