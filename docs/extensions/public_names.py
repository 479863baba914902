"""The reference of the public names: a directive that documents them, links to them, and a check that none is missing.

``.. public:: adapters`` documents, in the order of ``diffusion_labs/__init__.pyi``, what is public and comes from that
part of the package, and then what only the part itself exports. A new line of the stub is on its page with no other
change. A name in code style, here or in a docstring, becomes a link to its entry.
"""

import importlib
import inspect
import re
from collections.abc import Mapping

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import diffusion_labs as dl

PACKAGE = "diffusion_labs"
logger = logging.getLogger(__name__)
# Parts that export names beside the package's own
PARTS = ("layers", "metrics", "training", "data", "pretrained", "interop")


def public_names():
    """``{full name: module it is written in}`` of all public names, in the order of the stub and then of the parts."""
    stub = (importlib.resources.files(dl) / "__init__.pyi").read_text()
    found = {
        f"{PACKAGE}.{name}": f"{PACKAGE}.{module}" for module, name in re.findall(r"from \.(\S+) import (\w+)", stub)
    }
    for part in PARTS:
        module = importlib.import_module(f"{PACKAGE}.{part}")
        for name in module.__all__:
            if f"{PACKAGE}.{name}" not in found:
                found[f"{module.__name__}.{name}"] = module.__name__
    return found


NAMES = public_names()
SHORT = {name.rpartition(".")[2]: name for name in reversed(NAMES)}


def resolve(full_name):
    module, _, name = full_name.rpartition(".")
    return getattr(importlib.import_module(module), name)


def summary(full_name):
    """The first sentence of an object's docstring, or what kind of constant it is."""
    value = resolve(full_name)
    if not callable(value):
        return constant_text(value)
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) ", text)[0].rstrip(":;") if len(text) > 140 else text


def constant_text(value):
    """What a public constant holds."""
    if isinstance(value, Mapping):
        return "Sizes by name: " + ", ".join(f"``{key}``" for key in value) + "."
    return f"``{value!r}``"


def entry(full_name):
    """The lines of reStructuredText that document one name."""
    value = resolve(full_name)
    if inspect.isclass(value):
        return [f".. autoclass:: {full_name}", ""]
    if callable(value):
        return [f".. autofunction:: {full_name}", ""]
    return [f".. py:data:: {full_name}", "", f"   {constant_text(value)}", ""]


class Public(SphinxDirective):
    """``.. public:: PART ...``: a table of the public names of some parts of the package, then their entries."""

    required_arguments = 1
    optional_arguments = 20

    def run(self):
        within = tuple(f"{PACKAGE}.{part}." for part in self.arguments)
        names = [name for name, module in NAMES.items() if f"{module}.".startswith(within)]
        if not names:
            raise self.error(f"no public name comes from {', '.join(self.arguments)}")
        lines = [".. list-table::", "   :class: names", "   :widths: auto", ""]
        for name in names:
            lines += [f"   * - :py:obj:`~{name}`", f"     - {summary(name)}"]
        lines.append("")
        for name in names:
            lines += entry(name)
        return self.parse_text_to_nodes("\n".join(lines))


def linked(app, doctree):
    """Make a link of each public name in code style that stands alone: ``DDIMSampler``, ``Sampler.step``."""
    for literal in list(doctree.findall(nodes.literal)):
        name, *attribute = literal.astext().removeprefix("dl.").split(".")
        if name not in SHORT or isinstance(literal.parent, (nodes.reference, nodes.title, addnodes.pending_xref)):
            continue
        target = ".".join([SHORT[name], *attribute])
        link = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True, refdoc=app.env.docname
        )
        literal.replace_self(link)
        link += literal


def skipped(app, what, name, value, skip, options):
    """Leave out what the class says already: the fields of a named tuple, and methods that say "See the class."."""
    said = type(value).__name__ == "_tuplegetter" or (getattr(value, "__doc__", None) or "").startswith("See the ")
    return True if said else skip


def of_the_package(app, env, node, contnode):
    """A type in a signature is linked by its public name; what is private, or of another library, is plain text."""
    target = node["reftarget"]
    name = SHORT.get(target.rpartition(".")[2])
    if node.get("refdomain") != "py":
        return None
    if name is None or name == target:
        return contnode
    return env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)


def nothing_is_missing(app, env):
    """Warn of each public name without an entry, which makes the build fail."""
    documented = {name for name, *_ in env.domains.python_domain.get_objects()}
    for name in NAMES:
        if name not in documented:
            logger.warning("%s is public, and on no page of docs/api", name)


def setup(app):
    app.add_directive("public", Public)
    app.connect("autodoc-skip-member", skipped)
    app.connect("doctree-read", linked)
    app.connect("missing-reference", of_the_package)
    app.connect("env-check-consistency", nothing_is_missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
