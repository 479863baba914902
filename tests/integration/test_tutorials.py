"""The tutorials run, and their notebooks are what the Python files say, with outputs of a run."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
LARGEST = 1_000_000  # bytes of a notebook


def cells_of(source: Path) -> list[tuple[str, str]]:
    """Kind and text of the cells of a file in jupytext's percent format, without its header."""
    _, _, text = source.read_text().split("# ---\n", 2)
    cells = []
    for kind, body in re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", text, re.DOTALL | re.MULTILINE):
        lines = body.strip("\n").split("\n")
        cells.append(("markdown", "\n".join(re.sub(r"^# ?", "", line) for line in lines)) if kind else ("code", body))
    return [(kind, text.strip("\n")) for kind, text in cells]


def notebook_of(source: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(source.with_suffix(".ipynb").read_text())
    return notebook


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables of a tutorial after it was run at the small size."""
    monkeypatch.setenv("TUTORIAL_SIZE", "small")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(folder)
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    try:
        return runpy.run_path(str(ROOT / "docs" / "tutorials" / f"{name}.py"))
    finally:
        plt.close("all")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_mnist_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("mnist_training", tmp_path, monkeypatch)
    assert sum(found["losses"][-5:]) < 0.8 * sum(found["losses"][:5])
    assert (tmp_path / "mnist-model" / "config.json").exists()


def test_latent_diffusion_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("latent_diffusion", tmp_path, monkeypatch)
    for losses in (found["autoencoder_losses"], found["losses"], found["patch_losses"]):
        assert sum(losses[-5:]) < 0.98 * sum(losses[:5])
    assert (tmp_path / "latent-digits" / "config.json").exists()


def test_latent_diffusion_is_a_hundred_lines() -> None:
    """As its title says: of code in cells, without blank lines and what Colab installs."""
    _, *cells = [text for kind, text in cells_of(ROOT / "docs" / "tutorials" / "latent_diffusion.py") if kind == "code"]
    assert 90 <= sum(1 for cell in cells for line in cell.split("\n") if line.strip()) <= 120


def test_dalle2_from_parts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    found = run("dalle2_from_parts", tmp_path, monkeypatch)
    for part in ("clip", "prior", "decoder", "upsampler"):
        losses = found[f"{part}_losses"]
        assert sum(losses[-5:]) < 0.98 * sum(losses[:5]), part
    assert (tmp_path / "dalle2-digits" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_many_gpus_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares losses and checkpoints itself; that they could differ is seen here."""
    found = run("many_gpus", tmp_path, monkeypatch)
    assert found["one"][-5:].mean() < 0.9 * found["one"][:5].mean()
    assert not found["ddp"].equal(found["one"])


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_has_the_cells_of_its_source(source: Path) -> None:
    stored = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook_of(source)["cells"]]
    assert stored == cells_of(source), "run `make tutorials`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_keeps_a_whole_run_and_nothing_of_the_machine(source: Path) -> None:
    code = [cell for cell in notebook_of(source)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
    text = "".join("".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs)
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users|var|opt)/|[A-Z]:\\|0x[0-9a-f]{6,}", text)
    assert source.with_suffix(".ipynb").stat().st_size < LARGEST


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of the project whose tutorials know that they are published as someone/fork."""
    shutil.copytree(ROOT / "docs" / "tutorials", tmp_path / "docs" / "tutorials")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    command = [sys.executable, "scripts/tutorials.py", "--address", "someone/fork"]
    for _ in range(2):  # an address can be replaced
        subprocess.run(command, cwd=tmp_path, check=True)
        command[-1] = "owner/diffusion_labs.x"
    return tmp_path


def test_a_published_tutorial_opens_in_colab(published: Path) -> None:
    """The badge leads to this notebook, in the repository that the first cell installs from; nothing else changes."""
    for source in SOURCES:
        copy = published / source.relative_to(ROOT)
        for kind, text in cells_of(copy)[:2]:
            address = (
                r"\(https://colab\.research\.google\.com/github/(\S+?)\)"
                if kind == "markdown"
                else r"git\+https://github\.com/([^\"]+)"
            )
            notebook = f"/blob/main/docs/tutorials/{source.stem}.ipynb" if kind == "markdown" else ""
            assert re.findall(address, text) == ["owner/diffusion_labs.x" + notebook]
        assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook_of(copy)["cells"]] == cells_of(copy)
        for before, after in zip(source.read_text().split("\n"), copy.read_text().split("\n"), strict=True):
            assert before == after or "colab" in before or "source = " in before


def test_an_address_is_checked(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/tutorials.py", "--address", "https://github.com/someone/fork"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "OWNER/REPOSITORY of GitHub, got 'https://github.com/someone/fork'" in ran.stderr


@pytest.mark.slow
def test_a_published_tutorial_runs_where_nothing_but_it_is(published: Path, tmp_path: Path) -> None:
    """As on Colab: in an empty folder, where all that the library requires is installed; it installs the library."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    folder = tmp_path / "empty"
    folder.mkdir()
    run = "import nbclient, nbformat, sys; nbclient.execute(nbformat.read(sys.argv[1], 4), timeout=None)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "GIT_"))}
    clone = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf"}
    clone["GIT_CONFIG_VALUE_0"] = "https://github.com/owner/diffusion_labs.x"
    notebook = published / "docs" / "tutorials" / "mnist_training.ipynb"
    subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", run, notebook],
        cwd=folder,
        env={**environment, **clone, "TUTORIAL_SIZE": "small"},
        check=True,
    )
    assert (folder / "mnist-model" / "config.json").exists()
    assert (site / "diffusion_labs" / "__init__.py").exists()
