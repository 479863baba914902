"""The card of a run, and what the folder of its model says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import diffusion_labs as dl
from diffusion_labs.cli import main
from diffusion_labs.recipes.card import model_card
from diffusion_labs.recipes.dalle2 import CLIPModel, DALLE2Model
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.image_diffusion import ImageModel
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.latent_model import LatentModel
from diffusion_labs.recipes.opened import open_model
from diffusion_labs.recipes.restoration import InpaintingModel, SuperResolutionModel
from tests.cli.conftest import digits_run  # noqa: F401  (a fixture)

ModelCard = pytest.importorskip("huggingface_hub", reason="reads cards as the hub does").ModelCard
MEASURED = {
    "count": 12,
    "level": 0.95,
    "extractor": "a classifier",
    "measures": {"frechet_distance": {"value": 1.5, "low": 1.25, "high": 1.75, "real": 0.5}},
    "clip_score": {"clip": "a", "value": 30.5, "low": 30.0, "high": 31.0, "real": 33.0},
    "bits_per_dimension": {"images": 7, "value": 3.5, "low": 3.25, "high": 3.75},
    "loss_per_level": {
        "images": 9,
        "of": "pixels",
        "levels": [
            {
                "log_snr": -8.0,
                "x0": {"value": 0.5, "low": 0.25, "high": 0.75},
                "noise": {"value": 0.125, "low": 0.0, "high": 0.25},
            }
        ],
    },
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
    assert metadata["pipeline_tag"] == "unconditional-image-generation"
    assert "| frechet_distance | 1.5 (1.25 to 1.75) | 0.5 |" in card
    assert "| CLIP score | 30.5 (30 to 31) | 33 |" in card
    assert "Bits per dimension of 7 real images: 3.5 (3.25 to 3.75)." in card
    assert "| -8.00 | 0.5 (0.25 to 0.75) | 0.125 (0 to 0.25) |" in card
    assert "| steps | `6` |" in card
    made: dict[str, torch.Tensor] = {}
    exec(card.split("```")[1].removeprefix("python\n"), made)
    model, sizes = open_model(run)
    assert torch.equal(made["images"], draw(model, sizes, torch.arange(8), seed=0))


SMALL = {"autoencoder_channels": (8, 8), "model_channels": 32, "channel_mult": (1,), "attention_levels": (0,)}


@pytest.mark.parametrize(
    ("sizes", "task", "drawn"),
    [
        (ImageModel((1, 8, 8), (), patch_size=1, model_channels=32), "unconditional-image-generation", True),
        (LatentModel((3, 8, 8), ("a", "b"), **SMALL), "unconditional-image-generation", True),
        (LatentModel((3, 8, 8), captions=True, **SMALL), "text-to-image", True),
        (SuperResolutionModel((1, 16, 16), (), model_channels=32), "image-to-image", False),
        (InpaintingModel((1, 16, 16), (), model_channels=32), "image-to-image", False),
        (DALLE2Model((1, 32, 32)), "text-to-image", None),  # takes too long here
        (CLIPModel((1, 32, 32)), None, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_card_has_the_hub_s_task_and_code_that_runs(sizes: Any, task: str | None, drawn, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "model"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"recipe": "mnist", "arguments": {}, "model": described(sizes)}))
    card = model_card(run, license="mit", name=str(folder))
    metadata = ModelCard(card).data  # as the hub's own client reads it
    assert metadata.pipeline_tag == task
    assert metadata.license == "mit"
    if drawn is None:
        return
    dl.save_pretrained(sizes.build(), folder, about={"sizes": described(sizes)}, card=card)
    made: dict[str, Any] = {}
    exec(card.split("```")[1].removeprefix("python\n"), made)
    assert described(made["sizes"]) == json.loads(json.dumps(described(sizes)))
    assert ("images" in made) == drawn
    if drawn:
        assert made["images"].shape == (8, *sizes.image_shape)
