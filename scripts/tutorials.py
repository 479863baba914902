#!/usr/bin/env python3
"""Run the tutorials and store them as notebooks: docs/tutorials/NAME.py to NAME.ipynb, with what the cells put out.

    python scripts/tutorials.py [--text] [NAME ...]
    python scripts/tutorials.py --address OWNER/REPOSITORY

The Python files are the source. Text in them is Markdown in comments, and `# %%` begins a cell (the "percent" format
of jupytext), so they are read, compared and tested like any other code. What a notebook stores of a run is its outputs
alone: no times, no names of machines, and no numbers that differ when nothing has changed.

The badge of a tutorial opens it in Colab, and the tutorial installs this library there, from the address on GitHub that
--address has set. Before, the badge opens Colab's search of GitHub, and the tutorial installs the released package.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"


def store(source: Path) -> Path:
    """Run a tutorial in a folder of its own, and write its notebook; return the notebook's path."""
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute()
    return write(notebook, source.with_suffix(".ipynb"))


def store_text(source: Path) -> Path:
    """Bring changed text into a stored notebook, whose outputs stay, as its code is still what was run."""
    target = source.with_suffix(".ipynb")
    notebook, stored = jupytext.read(source), nbformat.read(target, as_version=4)
    was_run = [cell for cell in stored.cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in code] != [cell.source for cell in was_run]:
        raise SystemExit(f"{source.name}: its code has changed since it was run; run it again, without --text")
    for cell, run in zip(code, was_run, strict=True):
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return write(notebook, target)


def write(notebook: nbformat.NotebookNode, target: Path) -> Path:
    """Write a notebook without what differs when nothing has changed; return its path."""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.NotebookNode()
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow gives each picture twice
    notebook.metadata = nbformat.NotebookNode(
        jupytext={"formats": "ipynb,py:percent"},
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    nbformat.write(notebook, target)
    return target


def set_address(source: Path, repository: str) -> None:
    """Let the badge open the notebook of a repository on GitHub, and the notebook install the package from there."""
    notebook = source.with_suffix(".ipynb")
    page = f"{repository}/blob/main/{notebook.relative_to(ROOT)}"
    for path in (source, notebook):
        text = path.read_text()  # of a notebook: JSON, which escapes quotation marks
        text = re.sub(r"(colab\.research\.google\.com/github/)[^)]*", rf"\g<1>{page}", text)
        package = r'(source = \\?"diffusion-labs(?:\[\w+\])?)[^"\\]*'
        path.write_text(re.sub(package, rf"\1 @ git+https://github.com/{repository}", text))


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the tutorials and store them as notebooks.")
    parser.add_argument("names", nargs="*", help="tutorials, without .py; all if none are given")
    parser.add_argument("--text", action="store_true", help="run nothing: only bring changed text into the notebooks")
    parser.add_argument(
        "--address", metavar="OWNER/REPOSITORY", help="run nothing: only set where Colab finds them on GitHub"
    )
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in TUTORIALS.glob("*.py"))
    if arguments.address is not None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.address):
            parser.error(f"--address is OWNER/REPOSITORY of GitHub, got {arguments.address!r}")
        for name in names:
            set_address(TUTORIALS / f"{name}.py", arguments.address)
        return
    # tqdm says, with a path of this machine, that a notebook could have widgets
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    # The kernel finds this clone's package, whichever is installed
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for name in names:
        source = TUTORIALS / f"{name}.py"
        target = store_text(source) if arguments.text else store(source)
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
