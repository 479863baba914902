"""A small run; pictures during training are short here."""

from pathlib import Path

import pytest

from diffusion_labs.cli import main
from tests.short_previews import short_previews  # noqa: F401  (a fixture that is used by itself)

SMALL = ["--steps", "6", "--batch-size", "8", "--log-every", "2"]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe digits, of six updates, with snapshots."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    main(["train", "digits", *SMALL, "--ema-snapshot-every", "3", "--run-dir", str(folder)])
    return folder
