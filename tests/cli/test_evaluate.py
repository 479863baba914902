"""``diffusion-labs evaluate``: cards of folders and runs, and what it says of mistakes."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from diffusion_labs.cli import main
from diffusion_labs.cli.evaluation_card import conditions_like
from diffusion_labs.data import Digits
from diffusion_labs.images import image_grid, save_image
from diffusion_labs.metrics import train_classifier
from diffusion_labs.recipes.any_images import AnyImages


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ninety-six images of digits, in a folder for each of four classes."""
    root = tmp_path_factory.mktemp("digits")
    digits = Digits()
    for label in range(4):
        for i, image in enumerate(digits.images[digits.labels == label][:24]):
            picture = image_grid(image[None].float() / 127.5 - 1, padding=0)
            save_image(root / f"digit-{label}" / f"{i}.png", picture)
    return root


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_labs.cli.evaluation_card.train_classifier", partial(train_classifier, steps=30))


def evaluated(*words: object) -> None:
    main(["evaluate", *map(str, words)])


def test_a_folder_is_as_good_as_itself(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "card.json"
    evaluated(folder, "--reference", folder, "--size", 8, "--count", 40, "--seed", 1, "--out", out)
    card = json.loads(out.read_text())
    assert card["count"] == 40
    assert card["measures"]["copied"]["value"] == 1.0  # each is one of the real images
    assert card["measures"]["copied"]["real"] < 0.2
    assert card["reference"]["images"] == 96
    assert card["samples"]["folder"] == str(folder)
    assert set(card["versions"]) == {"diffusion-labs", "torch"}
    printed = capsys.readouterr().out
    assert all(name in printed for name in card["measures"])


def test_samples_of_a_run_are_drawn_and_told_how(digits_run: Path, folder: Path, tmp_path: Path) -> None:
    cards = []
    for name in ("once", "again"):
        out = tmp_path / f"{name}.json"
        evaluated(digits_run, "--reference", folder, "--count", 12, "--steps", 2, "--seed", 5, "--out", out)
        cards.append(json.loads(out.read_text()))
    assert cards[0]["measures"] == cards[1]["measures"]
    assert cards[0]["samples"] == {
        "run": "digits",
        "sampler": cards[0]["samples"]["sampler"],
        "grid": "trailing",
        "steps": 2,
        "guidance_scale": 1.0,
        "seeds": [5, 16],
        "dtype": "float32",
    }


def test_classes_are_asked_for_as_often_as_the_real_images_have_them() -> None:
    class Sizes:
        conditions = ("class",)
        class_names = ("cat", "dog", "fox")

    labels = torch.tensor([0] * 30 + [1] * 90)
    real = AnyImages(torch.zeros(120, 1, 2, 2), labels, None, ("dog", "fox"))
    wanted = conditions_like(real, Sizes(), 4000, seed=0)
    counts = torch.bincount(wanted, minlength=3)
    assert counts[0] == 0
    assert 0.2 < counts[1] / 4000 < 0.3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}", "--reference", "{folder}"], "give --size"),
        (["{folder}", "--reference", "{folder}/nowhere", "--size", "8"], "does not exist"),
        (["{folder}", "--reference", "{folder}/digit-1", "--size", "8", "--count", "10"], "no classes"),
        (["{folder}", "--reference", "{folder}", "--size", "8", "--features", "no.pt"], "no.pt"),
        (["{folder}", "--reference", "{folder}", "--count", "0"], "at least 1"),
        (["{run}", "--reference", "{folder}", "--size", "9"], "draws 8 pixels"),
    ],
)
def test_mistakes_are_one_line(folder: Path, digits_run: Path, capsys, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluated(*(word.format(folder=folder, run=digits_run) for word in words))
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
