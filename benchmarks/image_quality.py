"""How good a run's samples are, by a classifier trained on the real training images.

For guidance scales 1 (none) and 2: the share of samples recognised as the class asked for; the mean distance
of samples of one class, as a share of the real images'; the Frechet distance to real test images in the
classifier's features (not FID: another network), beside that of other real images.

    python -m benchmarks image_quality runs/mnist --data-dir DIR
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

from diffusion_labs.data import IDXImages
from diffusion_labs.metrics import (
    accuracy,
    extract_features,
    frechet_distance,
    train_classifier,
    within_class_distance,
)
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.run import load_run


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks image_quality")


def measure(run_dir: tyro.conf.Positional[Path], data_dir: Path, count: int = 1000, steps: int = 50) -> None:
    """Measure the samples of a run of the recipe mnist.

    Args:
        run_dir: the run.
        data_dir: the IDX files that it was trained on.
        count: samples for each guidance scale.
        steps: calls of the network for each sample.
    """
    sampler, sizes = load_run(run_dir)
    train, test = (IDXImages(data_dir, split, size=sizes.image_shape[1]) for split in ("train", "test"))
    classifier = train_classifier(train.images, train.labels, train.num_classes)
    real = extract_features(classifier, test.images)
    half = len(real) // 2
    real_distance = within_class_distance(real, test.labels)

    report = {
        "classifier_accuracy_on_real": accuracy(classifier, test.images, test.labels),
        f"frechet_distance_real_to_real_{count}": frechet_distance(real[:half], real[half : half + count]),
    }
    labels = torch.arange(count) % len(sizes.class_names)
    for scale in (1.0, 2.0):
        images = draw(sampler, sizes, labels, seed=0, guidance_scale=scale, steps=steps, progress_bar=True)
        features = extract_features(classifier, images)
        report[f"guidance_{scale:g}"] = {
            "recognised": accuracy(classifier, images, labels),
            "within_class_distance_share_of_real": within_class_distance(features, labels) / real_distance,
            "frechet_distance": frechet_distance(real[:half], features),
        }
    text = json.dumps(report, indent=2)
    (run_dir / "quality.json").write_text(text + "\n")
    print(text)
