"""The demonstration, in miniature."""

import json
from pathlib import Path

from PIL import Image

from diffusion_labs.metrics import ImageClassifier, train_classifier
from diffusion_labs.recipes import demo as module

REPORT = ["class_accuracy", "real_accuracy", "untrained_accuracy", "train_seconds", "images_seen", "parameters"]


def test_it_writes_all_it_says_and_removes_nothing_else(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLES_PER_CLASS", 2)
    monkeypatch.setattr(module, "SAMPLING_STEPS", 2)
    classifiers = []

    def train_once(*args, **options) -> ImageClassifier:
        """The second demonstration trains the same one again."""
        if not classifiers:
            classifiers.append(train_classifier(*args, **options))
        return classifiers[0]

    monkeypatch.setattr(module, "train_classifier", train_once)
    told: list[str] = []
    module.demo(tmp_path, told.append, steps=2)
    (tmp_path / "thesis.txt").write_text("mine")
    figures = module.demo(tmp_path, told.append, steps=3)  # a finished one is made anew
    assert list(figures) == REPORT
    assert json.loads((tmp_path / "report.json").read_text()) == figures
    assert figures["images_seen"] == 3 * module.BATCH_SIZE
    assert figures["real_accuracy"] > 0.98
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()
    for name in ("samples.png", "loss.png"):
        assert Image.open(tmp_path / name).size[0] > 400
    assert f"{figures['class_accuracy']:.1%} of the samples" in told[-1]
