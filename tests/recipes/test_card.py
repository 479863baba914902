"""The card of a run, and what the folder of its model says."""

import json
import shutil
from pathlib import Path

import torch
import yaml

from diffusion_labs.cli import main
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.opened import open_model
from tests.cli.conftest import digits_run  # noqa: F401  (a fixture)

MEASURED = {
    "count": 12,
    "level": 0.95,
    "extractor": "a classifier",
    "measures": {"frechet_distance": {"value": 1.5, "low": 1.25, "high": 1.75, "real": 0.5}},
}


def test_a_converted_run_has_a_card_and_draws_as_the_run(digits_run: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    run, folder = tmp_path / "run", tmp_path / "model"
    shutil.copytree(digits_run, run)
    (run / "evaluation.json").write_text(json.dumps(MEASURED))
    main(["convert", str(run), str(folder), "--license", "mit"])
    card = (folder / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "mit"
    assert metadata["library_name"] == "diffusion_labs"
    assert "| frechet_distance | 1.5 (1.25 to 1.75) | 0.5 |" in card
    assert "| steps | `6` |" in card
    made: dict[str, torch.Tensor] = {}
    exec(card.split("```")[1].removeprefix("python\n"), made)
    model, sizes = open_model(run)
    assert torch.equal(made["images"], draw(model, sizes, torch.arange(8), seed=0))
