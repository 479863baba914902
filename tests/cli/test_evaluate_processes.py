"""``evaluate`` on two processes: the card of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffusion_labs.data import Digits
from diffusion_labs.images import image_grid, save_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen digits of each of two classes."""
    root = tmp_path_factory.mktemp("digits")
    digits = Digits()
    for label in (1, 3):
        for i, image in enumerate(digits.images[digits.labels == label][:16]):
            save_image(root / str(label) / f"{i}.png", image_grid(image[None].float() / 127.5 - 1, padding=0))
    return root


def card(launcher: list[str], out: Path, run: Path, folder: Path) -> tuple[dict[str, Any], str]:
    """The card that a command writes, and what it prints."""
    words = ["evaluate", str(run), "--reference", str(folder), "--count", "13", "--steps", "2", "--seed", "5"]
    words += ["--levels", "2", "--likelihood", "3", "--out", str(out)]
    command = [sys.executable, *launcher, "-m", "diffusion_labs", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    del found["date"]
    return found, done.stdout.replace(str(out), "the card")


@pytest.mark.slow
def test_two_processes_write_the_card_of_one(digits_run: Path, folder: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    expected, told = card([], tmp_path / "one.json", digits_run, folder)
    found, also_told = card(torchrun, tmp_path / "two.json", digits_run, folder)
    # The chosen steps of its solver depend on sums over a batch, which round
    bits, alone = (dict(one.pop("bits_per_dimension")) for one in (found, expected))
    assert [bits.pop(name) for name in ("value", "low", "high")] == pytest.approx(
        [alone.pop(name) for name in ("value", "low", "high")], rel=1e-4
    )
    assert (found, bits) == (expected, alone)
    assert also_told == told
