"""The page on adding parts, followed to the letter: each of its six parts passes the laws of its kind."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to.md"
PARTS = ("power_schedule", "data_velocity", "exponential_trapezoid", "epsilon_scaling", "random_mirror", "plain_net")


def follow(page: Path, repository: Path) -> None:
    """Write the blocks of the page to where their first lines say."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        place, code = block.split("\n", 1)
        path, _, within = place.removeprefix("# ").partition(", ")
        file = repository / path
        if not within:
            assert not file.exists(), f"{path} exists: the page is to show a new part"
            file.write_text(code)
        elif within.startswith("in "):
            text, begin = file.read_text(), re.compile(rf"^{within.removeprefix('in ')}: .* = {{$", re.MULTILINE)
            (opened,) = begin.finditer(text)
            file.write_text(f"{text[: opened.end()]}\n{code.rstrip()}{text[opened.end() :]}")
        else:
            file.write_text(file.read_text() + code)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the laws need, with the parts of the page."""
    copy = tmp_path_factory.mktemp("repository")
    for name in ("diffusion_labs", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    follow(PAGE, copy)
    return copy


def passed(repository: Path, *arguments: str) -> int:
    """How many laws there are that hold; none may fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]
    (count,) = re.findall(r"(\d+) passed", run.stdout.splitlines()[-1])
    return int(count)


def test_the_parts_are_public_and_complete(repository: Path) -> None:
    assert passed(repository, "tests/contracts/test_catalogue.py") == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", PARTS)
def test_the_part_keeps_every_law(part: str, repository: Path) -> None:
    assert passed(repository, "tests/contracts", "tests/transforms", "-k", f"{part} and not sharding") >= 7
