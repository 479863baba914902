"""A page for each source file that a page links to, so that such links lead somewhere on the site as well.

On GitHub ``[laws](../tests/contracts/test_schedules.py)`` is the file itself; here it is a page of its text. A link to
a folder becomes one to the list of its files.
"""

from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("diffusion_labs", "tests", "benchmarks", "scripts")


def page_name(path):
    return f"source/{path.relative_to(ROOT).as_posix()}"


def to_pages(app, doctree):
    """Replace links to source files, which MyST makes into downloads, and to folders, by links to their pages."""
    env, here = app.env, Path(app.env.doc2path(app.env.docname)).parent
    links = [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]
    for node in links:
        path = (here / node["reftarget"].lstrip("/")).resolve()
        if not path.exists() or not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in SHOWN:
            continue
        env.source_pages.setdefault(env.docname, set()).add(path)
        uri = app.builder.get_relative_uri(env.docname, page_name(path)) if app.builder.format == "html" else ""
        node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def pages(app):
    """``(name, context, template)`` of each page of source."""
    formatter = HtmlFormatter(linenos="inline", lineanchors="line")
    for path in sorted(set().union(*app.env.source_pages.values())):
        body = listing(path) if path.is_dir() else coloured(path, formatter)
        title = path.relative_to(ROOT).as_posix()
        yield page_name(path), {"title": title, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def listing(path):
    names = sorted(child.name for child in path.iterdir() if child.suffix in (".py", ".cpp", ".h"))
    return "<ul>" + "".join(f"<li><code>{name}</code></li>" for name in names) + "</ul>"


def coloured(path, formatter):
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = get_lexer_for_filename("text.txt")
    return f'<div class="highlight">{highlight(path.read_text(), lexer, formatter)}</div>'


def begin(app, env, docnames):
    env.source_pages = getattr(env, "source_pages", {})
    for name in docnames:
        env.source_pages.pop(name, None)


def merge(app, env, docnames, other):
    for name in docnames:
        if name in other.source_pages:
            env.source_pages[name] = other.source_pages[name]


def setup(app):
    app.connect("env-before-read-docs", begin)
    app.connect("env-merge-info", merge)
    app.connect("doctree-read", to_pages)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
