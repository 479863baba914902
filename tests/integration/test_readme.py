"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest
from PIL import Image

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(("updates", "fall"), [pytest.param(300, 0.5, marks=pytest.mark.slow), (60, 0.75)])
def test_the_first_python_of_the_readme_runs(
    updates: int, fall: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """As it stands in the slow tests; with fewer updates and calls of the network in the others."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for full, less in (("range(300)", f"range({updates})"), ("eval_steps=25", f"eval_steps={updates // 12}")):
        assert code.count(full) == 1
        code = code.replace(full, less)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < fall * losses[0]
    assert Image.open("digits.png").size == (8 * (8 * 10 + 2), 8 * (10 * 10 + 2))


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in (README, README.parent / "CONTRIBUTING.md", *(README.parent / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"
