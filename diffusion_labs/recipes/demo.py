"""The demonstration: train on handwritten digits, draw some, and measure how many are right."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffusion_labs.data import Digits
from diffusion_labs.images import line_plot
from diffusion_labs.metrics import ImageClassifier, accuracy, train_classifier
from diffusion_labs.recipes.drawing import draw, draw_classes
from diffusion_labs.recipes.image_diffusion import ImageModel
from diffusion_labs.recipes.run import load_run, prepare_run
from diffusion_labs.samplers import DDIMSampler
from diffusion_labs.training import TrainOptions, latest_checkpoint
from diffusion_labs.training.log import read_metrics

STEPS = 500
BATCH_SIZE = 64
MODEL_CHANNELS = 32
GUIDANCE_SCALE = 2.0
SAMPLES_PER_CLASS = 40
SAMPLING_STEPS = 20


def demo(run_dir: Path, say: Callable[[str], None] = print, *, steps: int = STEPS) -> dict[str, float]:
    """Train the recipe ``digits``, and write samples, a loss curve and a report to the run's folder.

    An interrupted demonstration goes on where it was; a finished one is made anew.

    Args:
        run_dir: the folder: ``samples.png``, ``loss.png``, ``report.json``, ``metrics.jsonl``, ``checkpoints``.
        say: told what is being done.
        steps: updates.

    Returns:
        The report: ``class_accuracy`` (share of the samples that a classifier, trained only on the real
        training images, takes for the class that was asked for), ``real_accuracy`` (the same of held-out
        real images), ``untrained_accuracy`` (of samples of the untrained model), ``train_seconds``,
        ``images_seen`` and ``parameters``.
    """
    report = run_dir / "report.json"
    if report.exists() and latest_checkpoint(run_dir / "checkpoints") is not None:
        _remove_outputs(run_dir)
    train_images, test_images = Digits("train"), Digits("test")
    say(f"Digits: {len(train_images):,} real images of 8x8 pixels to train on, {len(test_images)} held out")

    began = time.perf_counter()
    options = TrainOptions(resume=True, log_every=10, save_every=200, preview_every=200)
    arguments = {"steps": steps, "batch_size": BATCH_SIZE, "model_channels": MODEL_CHANNELS}
    prepare_run("digits", arguments, run_dir, resume=True).carry_out(run_dir, options)
    train_seconds = time.perf_counter() - began

    say("Sampling, and asking a classifier that has only seen real images")
    sampler, sizes = load_run(run_dir)
    classifier = train_classifier(train_images.images, train_images.labels, len(sizes.class_names), steps=300)
    untrained = sizes.build().eval()
    figures = {
        "class_accuracy": class_accuracy(sampler, sizes, classifier),
        "real_accuracy": accuracy(classifier, test_images.images, test_images.labels),
        "untrained_accuracy": class_accuracy(untrained, sizes, classifier),
        "train_seconds": round(train_seconds, 1),
        "images_seen": steps * BATCH_SIZE,
        "parameters": sum(parameter.numel() for parameter in sampler.parameters()),
    }
    picture = run_dir / "samples.png"
    draw_classes(sampler, sizes, picture, per_class=10, guidance_scale=GUIDANCE_SCALE, steps=SAMPLING_STEPS)
    lines = read_metrics(run_dir)
    curve = [line["step"] for line in lines], [line["loss"] for line in lines]
    line_plot(run_dir / "loss.png", {"loss": curve}, "Digits: squared error of v", y_label="loss", log_y=True)
    report.write_text(json.dumps(figures, indent=2) + "\n")

    say(
        f"Recognised as the class asked for: {figures['class_accuracy']:.1%} of the samples, "
        f"{figures['real_accuracy']:.1%} of held-out real images, "
        f"{figures['untrained_accuracy']:.1%} of samples before training.\n"
        f"Look at {run_dir / 'samples.png'} and {run_dir / 'loss.png'}. Then, after `source .venv/bin/activate`, try:\n"
        f"  diffusion-labs sample {run_dir} --class 7 --guidance-scale 1 --seed 1\n"
        "  diffusion-labs train mnist"
    )
    return figures


def _remove_outputs(run_dir: Path) -> None:
    """Remove what an earlier demonstration wrote, and nothing else."""
    for name in ("checkpoints", "samples", "tensorboard"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in ("report.json", "run.json", "metrics.jsonl", "samples.png", "loss.png"):
        (run_dir / name).unlink(missing_ok=True)


def class_accuracy(sampler: DDIMSampler, sizes: ImageModel, classifier: ImageClassifier) -> float:
    """Share of samples, ``SAMPLES_PER_CLASS`` of each class, that the classifier takes for their class."""
    labels: Tensor = torch.arange(len(sizes.class_names)).repeat_interleave(SAMPLES_PER_CLASS)
    images = draw(sampler, sizes, labels, seed=1_000_000, guidance_scale=GUIDANCE_SCALE, steps=SAMPLING_STEPS)
    return accuracy(classifier, images, labels)
