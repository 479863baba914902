"""The card of a run's model, for its folder and the hub: what it is, what it was trained on, and how good it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_labs.recipes.catalogue import RECIPES
from diffusion_labs.recipes.kinds import sizes_of
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.run import read_run

EVALUATION = "evaluation.json"  # what `diffusion-labs evaluate` writes

DRAW = """```python
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.opened import open_model
from diffusion_labs.recipes.wanted import wanted

model, sizes = open_model({name!r})
images = draw(model, sizes, wanted(sizes, None, {prompt}, count=8), seed=0)
```"""
OPEN = """```python
from diffusion_labs.recipes.opened import open_model

model, sizes = open_model({name!r})
```"""


def model_card(run_dir: Path, *, license: str = "unknown", name: str | None = None) -> str:
    """The ``README.md`` of a run's model, with the metadata of the hub.

    Args:
        run_dir: the run's folder; its evaluation is part of the card, if it was evaluated.
        license: of the weights, by the hub's names, such as "mit"; it depends on the data.
        name: to load the model by; that of the folder if ``None``.

    Raises:
        CheckpointError: if it is not the folder of a run.
        ValueError: if it does not describe a model.
    """
    run, name = read_run(run_dir), name or run_dir.name
    recipe, arguments = run["recipe"], run["arguments"]
    evaluation, sizes = run_dir / EVALUATION, sizes_of(run["model"])
    task = task_of(sizes)
    metadata = {"library_name": "diffusion_labs", **({"pipeline_tag": task} if task else {}), "license": license}
    parts = [
        "\n".join(["---", *(f"{key}: {value}" for key, value in metadata.items()), "---"]),
        f"# {name}",
        f"A diffusion model of the recipe `{recipe}` of diffusion_labs: {RECIPES.get(recipe, 'not in this version')}.",
        "## Use",
        _use(sizes, name),
        "## Training",
        _table({"argument": "value", **{key: f"`{value}`" for key, value in arguments.items()}}),
        "## Evaluation",
        _measures(json.loads(evaluation.read_text())) if evaluation.is_file() else "It was not evaluated.",
        "## Limits",
        "It draws what its data show, with their faults and gaps, and may draw copies of them. Nothing filters it.",
    ]
    return "\n\n".join(parts) + "\n"


def task_of(sizes: Any) -> str | None:
    """The task of a model, by the hub's names, which have none for classes alone; ``None`` if it draws no images."""
    if not isinstance(sizes, ModelSizes):
        return None
    if sizes.known:
        return "image-to-image"
    return "text-to-image" if "caption" in sizes.conditions else "unconditional-image-generation"


def _use(sizes: Any, name: str) -> str:
    """The code that draws from a model, or opens one that needs more than can be said here."""
    if task_of(sizes) in (None, "image-to-image"):
        return OPEN.format(name=name)
    return DRAW.format(name=name, prompt=repr("a caption") if "caption" in sizes.conditions else None)


def _measures(card: dict[str, Any]) -> str:
    rows = {"measure": f"samples ({card['level']:.0%} interval) | other real images"}
    for key, found in card["measures"].items():
        rows[key] = f"{interval_text(found)} | {found['real']:.5g}"
    if "clip_score" in card:
        found = card["clip_score"]
        rows["CLIP score"] = f"{interval_text(found)} | {found['real']:.5g}"
    text = (
        f"{card['count']} samples beside as many real images, in features of {card['extractor']}. Intervals are "
        "for so many: a Frechet distance falls with more, and means something beside that of other real images."
    )
    parts = [text, _table(rows)]
    if "bits_per_dimension" in card:
        found = card["bits_per_dimension"]
        parts.append(f"Bits per dimension of {found['images']} real images: {interval_text(found)}.")
    if "loss_per_level" in card:
        found = card["loss_per_level"]
        levels = {"log-SNR": "squared error of clean data | of noise"}
        for row in found["levels"]:
            levels[f"{row['log_snr']:.2f}"] = f"{interval_text(row['x0'])} | {interval_text(row['noise'])}"
        parts += [f"At noise levels, of the {found['of']} of {found['images']} real images:", _table(levels)]
    return "\n\n".join(parts)


def interval_text(found: Mapping[str, Any]) -> str:
    """A figure of an evaluation, with its interval."""
    return f"{found['value']:.5g} ({found['low']:.5g} to {found['high']:.5g})"


def _table(rows: dict[str, str]) -> str:
    first, *others = (f"| {key} | {value} |" for key, value in rows.items())
    return "\n".join([first, "|" + "---|" * (first.count("|") - 1), *others])
