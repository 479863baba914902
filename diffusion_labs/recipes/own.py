"""Recipes, samplers and grids in files of the user's own, by name: ``my_file.py:name`` or ``my_module:name``.

The file is imported, so such a name is one that the user gave, and never one that was read somewhere.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from diffusion_labs.spelling import unknown


def is_own(word: str) -> bool:
    """Whether a word names something in a file or module of the user's own."""
    return ":" in word or word.endswith(".py")


def short_name(word: str) -> str:
    """The name without the file or module: that of the file, if it is one alone."""
    return Path(word.rpartition(":")[2]).name.removesuffix(".py")


def load_own(word: str) -> Any:
    """What a name of the user's own means; of ``my_file.py`` alone it is ``my_file``.

    As for a script, what is beside the file can be imported in it; a module is found from the current folder on.

    Raises:
        ValueError: if there is no such file or module, or nothing of this name in it.
    """
    place, _, _ = word.partition(":")
    file, name = Path(place), short_name(word)
    if is_file := place.endswith(".py"):
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
        module_name, folder = file.stem, file.resolve().parent
    else:
        module_name, folder = place, Path.cwd()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ValueError(f"there is no module {module_name}; give a file, such as {module_name}.py:{name}") from error
    if is_file and Path(module.__file__ or "").resolve() != file.resolve():
        raise ValueError(f"{file} has the name of another module, {module.__file__}; rename it")
    if not hasattr(module, name):
        there = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise ValueError(f"{place}: {unknown('name', name, there)}")
    return getattr(module, name)
