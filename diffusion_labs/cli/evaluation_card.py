"""The card that ``diffusion-labs evaluate`` writes: what was measured, on which samples, beside which images."""

import json
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.cli import UserError
from diffusion_labs.cli.evaluate import CLASSIFIER, FILES
from diffusion_labs.cli.model_measures import Wanted, noised, score_by_clip
from diffusion_labs.files import tensors_sha256
from diffusion_labs.metrics import (
    ClassifierFeatures,
    Evaluation,
    FeatureExtractor,
    TorchScriptFeatures,
    TransformersFeatures,
    evaluate,
    train_classifier,
)
from diffusion_labs.metrics.evaluation import check_counts
from diffusion_labs.metrics.processes import FeaturesInParts, in_parts
from diffusion_labs.recipes.any_images import AnyImages, load_images
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.run import load_run, read_run
from diffusion_labs.recipes.stages import RUN_FILE
from diffusion_labs.recipes.wanted import check_complete
from diffusion_labs.training.world import current_world

CLASSIFIED = 10_000  # real images that a classifier is trained on, if there are as many


def evaluated(
    source: Path,
    reference: Path,
    features: str,
    count: int,
    size: int | None,
    steps: int,
    guidance_scale: float,
    seed: int,
    level: float,
    device: str,
    asked: Wanted,
) -> tuple[Evaluation, dict[str, Any]]:
    """What was measured, and the card of it; see ``diffusion_labs.cli.evaluate`` for the arguments.

    Each of the processes that are joined draws and measures a part, and all have the same card.
    """
    drawn = (source / RUN_FILE).is_file()
    more: dict[str, Any] = {}
    read = max(2 * count, CLASSIFIED) if features == CLASSIFIER else 2 * count
    if drawn:
        model, sizes = load_run(source, device)
        check_complete(sizes)
        channels, height, _ = sizes.image_shape
        if size not in (None, height):
            raise UserError(f"--size is {size}, but the model draws {height} pixels; leave it out")
        real = load_images(reference, height, channels, count=read, seed=seed)
        check_counts(count, len(real.images))
        wanted = conditions_like(real, sizes, count, seed)
        data = noised(model, sizes, real, max(count, asked.likelihood or 0), seed)
        asked.check(sizes, data, real)
        measured_in = FeaturesInParts(extractor(features, real, seed, device))  # or an error, before anything is drawn
        drawing = partial(draw, model, sizes, guidance_scale=guidance_scale, steps=steps)
        bar = current_world().main
        parts = in_parts(count, lambda a, b: drawing(wanted[a:b], seed=seed + a, progress_bar=bar))
        samples = torch.cat(parts)
        sampler = sizes.sampler(model)
        how = {
            "run": read_run(source)["recipe"],
            "sampler": type(sampler).__name__,
            "grid": getattr(sampler.grid, "__name__", repr(sampler.grid)),
            "steps": steps,
            "guidance_scale": guidance_scale,
            "seeds": [seed, seed + count - 1],
            "dtype": str(samples.dtype).removeprefix("torch."),
        }
        more = asked.measure(sampler, data, count, seed, level)
        if asked.clip is not None:
            more["clip_score"] = score_by_clip(asked.clip, samples, real, chosen_like(real, count, seed), level, device)
    else:
        asked.check_folder(source)
        if not source.exists() or (source.is_dir() and not any(source.iterdir())):
            what = "is empty" if source.exists() else "does not exist"
            raise UserError(f"{source} {what}; give the folder of a run, or images")
        if size is None:
            raise UserError(f"{source} is no run; give --size, to which its images and those of --reference are scaled")
        channels = 3
        samples = load_images(source, size, channels, count=count, seed=seed).images
        real = load_images(reference, size, channels, count=read, seed=seed)
        check_counts(len(samples), len(real.images))
        measured_in = FeaturesInParts(extractor(features, real, seed, device))
        how = {"folder": str(source), "sha256": tensors_sha256({"x": samples})}
    evaluation = evaluate(samples, real.images, measured_in, level=level, seed=seed)
    card = {
        **evaluation.as_data(),
        **more,
        "samples": how,
        "reference": {
            "path": str(reference),
            "images": len(real.images),
            "sha256": tensors_sha256({"x": real.images}),
        },
        "versions": {package: version(package) for package in ("diffusion-labs", "torch")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return evaluation, json.loads(json.dumps(card))


def chosen_like(real: AnyImages, count: int, seed: int) -> Tensor:
    """The real images whose class or caption samples are drawn from: as many places, drawn at random."""
    return torch.randint(len(real.images), (count,), generator=torch.Generator().manual_seed(seed))


def conditions_like(real: AnyImages, sizes: Any, count: int, seed: int) -> Tensor | list[str]:
    """A class or caption for each sample, drawn from those of the real images."""
    chosen = chosen_like(real, count, seed)
    if "caption" in sizes.conditions:
        if real.captions is None:
            raise UserError("this model draws what a caption says, and the reference has none; give one with captions")
        return [real.captions[i] for i in chosen.tolist()]
    names = list(sizes.class_names)
    if not names:
        return torch.zeros(count, dtype=torch.long)
    if real.labels is None or not set(real.class_names) <= set(names):
        return torch.arange(count) % len(names)
    return torch.tensor([names.index(real.class_names[label]) for label in real.labels[chosen].tolist()])


def extractor(features: str, real: AnyImages, seed: int, device: str) -> FeatureExtractor:
    """What ``--features`` says."""
    if features.endswith(FILES):
        return TorchScriptFeatures(Path(features), device=device)
    if features != CLASSIFIER:
        return TransformersFeatures(features, device=device)
    if real.labels is None or len(real.class_names) < 2:
        raise UserError(
            "the reference has no classes, on which to train a classifier; give --features a TorchScript file or a "
            "vision model of transformers"
        )
    train = partial(train_classifier, real.images, real.labels, len(real.class_names), seed=seed, device=device)
    (classifier,) = in_parts(1, lambda *_: train().cpu())  # other machines would train another
    return ClassifierFeatures(classifier.to(device))


def table(evaluation: Evaluation) -> str:
    """The figures as lines of text."""
    lines = [
        f"{evaluation.count} samples beside {evaluation.count} real images; features of {evaluation.extractor}",
        f"{'':18}{'samples':>12}   {f'{evaluation.level:.0%} interval':^25}   {'other real images':>17}",
    ]
    for name, (samples, real) in ((name, (each.samples, each.real)) for name, each in evaluation.measures.items()):
        interval = f"{samples.low:.5g} to {samples.high:.5g}"
        lines.append(f"{name:18}{samples.value:12.5g}   {interval:^25}   {real:17.5g}")
    return "\n".join(lines)
