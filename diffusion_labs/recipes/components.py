"""The public components of a kind by short names, with one line about each; nothing of them is imported for that."""

import ast
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_labs.spelling import unknown

PACKAGE = Path(__file__).parent.parent
# A kind: the folder of its files, and how the names of its classes end. Grids are functions of (schedule, steps)
KINDS = {
    "samplers": ("samplers", "Sampler"),
    "grids": ("samplers", None),
    "schedules": ("schedules", "Schedule"),
    "predictors": ("predictors", "Predictor"),
    "adapters": ("adapters", ""),
}


FITTED = ("fitted", "FittedSampler")  # has weights only where it was fitted


class Component(NamedTuple):
    """A public class or function.

    Attributes:
        name: in diffusion_labs.
        summary: the first line of its docstring.
    """

    name: str
    summary: str

    def load(self) -> Any:
        """The class or function itself."""
        return getattr(importlib.import_module("diffusion_labs"), self.name)


@cache
def components(kind: str) -> Mapping[str, Component]:
    """The components of one of ``KINDS``, by short names: ``dpm-solver-pp-2m`` for ``DPMSolverPP2MSampler``."""
    folder, ending = KINDS[kind]
    found = {}
    for module, name in _public(folder):
        if name in FITTED:
            continue
        node = _definition(PACKAGE / folder / f"{module}.py", name)
        if ending is None:
            if isinstance(node, ast.FunctionDef) and [one.arg for one in node.args.args[:2]] == ["schedule", "steps"]:
                found[name] = Component(name, _summary(node))
        elif isinstance(node, ast.ClassDef) and name.endswith(ending) and not _abstract(node):
            short = module.replace("_", "-") if ending == "Sampler" else name
            found[short] = Component(name, _summary(node))
    return dict(sorted(found.items()))


def find_component(kind: str, name: str) -> Any:
    """A component by its short name, or by its own.

    Raises:
        ValueError: for an unknown name, with what was probably meant.
    """
    known = components(kind)
    own = {component.name: component for component in known.values()}
    if name not in known and name not in own:
        if name in FITTED:
            raise ValueError(f"'{name}' is made by FittedSampler.fit, in Python; without, it is ddim")
        raise ValueError(unknown(kind.removesuffix("s"), name, known))
    return (known.get(name) or own[name]).load()


def _public(folder: str) -> list[tuple[str, str]]:
    """Module and name of all that the package takes from the files of a folder."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    parted = [(str(node.module).split("."), node.names[0].name) for node in imports]
    return [(parts[1], name) for parts, name in parted if parts[0] == folder and len(parts) == 2]


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _definition(file: Path, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    nodes = (node for node in _tree(file).body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return next((node for node in nodes if node.name == name), None)


def _abstract(node: ast.ClassDef) -> bool:
    """Whether it is a base class, which says so in the beginning of its docstring."""
    return (ast.get_docstring(node) or "").lower().startswith("base ")


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0].rstrip(".:")
