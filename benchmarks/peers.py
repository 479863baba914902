"""Other libraries, for the tests and the benchmarks: the modules that are compared with, and nothing more.

Several import all of their parts, which need packages that are not installed here, and only for training or for files.
They are installed without their dependencies by ``scripts/bootstrap.py``.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


class Anything(ModuleType):
    """A package that has every submodule and every attribute, each of which can be called for another."""

    __path__: list[str] = []  # noqa: RUF012 (of the module, which a package has)

    def __getattr__(self, name: str) -> "Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)

    def __call__(self, *arguments: object, **options: object) -> "Anything":
        return self


class Stubs:
    """Finds a stub for every module below some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        return ModuleSpec(name, self) if name.split(".")[0] in self.names else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See ``importlib.abc.Loader``."""
        return Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``."""


@contextmanager
def stubbed(*names: str) -> Iterator[None]:
    """Packages are empty for a while, if they are not installed; afterwards they are missing again."""
    missing = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    stubs = Stubs(*missing)
    sys.meta_path.append(stubs)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(stubs)  # type: ignore[arg-type]
        for name in [name for name, module in sys.modules.items() if isinstance(module, Anything)]:
            del sys.modules[name]


def with_stubs(name: str, *missing: str) -> ModuleType:
    """Import a module while packages that it imports, and does not need here, are empty."""
    if name in sys.modules:
        return sys.modules[name]
    with stubbed(*missing):
        return importlib.import_module(name)


def k_diffusion_sampling() -> ModuleType:
    """k-diffusion's ``sampling`` module, without the rest of its package, whose ``__init__`` is not run.

    Raises:
        ImportError: if k-diffusion, or what its solvers need, is not installed.
    """
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    found = importlib.util.find_spec("k_diffusion")
    if found is None or found.origin is None:
        raise ImportError("k-diffusion is not installed; run `make install`")

    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(Path(found.origin).parent)]
    sys.modules["k_diffusion"] = package
    try:
        return with_stubs("k_diffusion.sampling", "torchvision")
    except ImportError:
        del sys.modules["k_diffusion"]
        raise
