"""The page of what works with what has every component, and says what it is to say of a failure."""

import re
from pathlib import Path

import pytest

from benchmarks import compatibility
from benchmarks.compatibility import KINDS, cells_of, components, page

PAGE = Path("docs/compatibility.md")


def test_the_page_has_every_component_of_the_catalogue() -> None:
    """If it has not: ``python -m benchmarks compatibility --out docs/compatibility.md``."""
    _, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    kinds = {title: kind for kind, title in KINDS.items()}
    found = {
        f"{kinds[title]}-{name}"
        for title, _, text in (section.partition("\n") for section in sections)
        if title in kinds
        for name in re.findall(r"^\| `(\w+)` ", text.replace("train-", "train_"), flags=re.MULTILINE)
    }
    assert found == {name.replace("train-", "train_") for name in components()}


def test_what_fails_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def impossible(name: str) -> None:
        raise RuntimeError(f"{name} is\nno program")

    monkeypatch.setattr(compatibility, "export", impossible)
    text = page(cells_of(["predictor-v"], tmp_path))
    assert re.search(r"^\| `v` \| yes \| no \[1\] \| yes \| yes \|$", text, flags=re.MULTILINE)
    assert "1. `RuntimeError: predictor-v is`" in text
