"""A run: a recipe carried out in a folder, and what is needed to use it afterwards."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.image_diffusion import ImageModel
from diffusion_labs.samplers import DDIMSampler
from diffusion_labs.training import (
    CheckpointError,
    Experiment,
    find_device,
    latest_checkpoint,
    load_checkpoint,
)

RUN_FILE = "run.json"


def prepare_run(name: str, arguments: Mapping[str, Any], run_dir: Path, *, resume: bool = False) -> Experiment:
    """Build a recipe's experiment for a folder, and write there what it is: ``run.json``.

    Args:
        name: of the recipe.
        arguments: of the recipe.
        run_dir: the run's folder; ``train(experiment, run_dir, options)`` comes next.
        resume: go on with the run that is in the folder, if there is one.

    Raises:
        CheckpointError: if the folder holds a run and ``resume`` is off, or a run by another recipe or with
            other arguments.
        ValueError: for arguments that the recipe cannot use.
    """
    told = {"recipe": name, "arguments": json.loads(json.dumps(dict(arguments), default=_plain))}
    if latest_checkpoint(run_dir / "checkpoints") is not None:
        if not resume:
            raise CheckpointError(f"{run_dir} already holds a run; add --resume to go on, or choose another --run-dir")
        _check_same(read_run(run_dir), told, run_dir)
    experiment = find_recipe(name)(**arguments)
    versions = {package: version(package) for package in ("diffusion-labs", "torch")}
    _write_json(run_dir / RUN_FILE, {**told, "model": dict(experiment.description), "versions": versions})
    return experiment


def load_run(run_dir: Path, device: str = "cpu") -> tuple[DDIMSampler, ImageModel]:
    """The trained model of a run, with averaged weights and in eval mode, and its sizes.

    Raises:
        CheckpointError: if the folder is not that of a run, or has no whole checkpoint.
        ValueError: if there is no such device.
    """
    newest = latest_checkpoint(run_dir / "checkpoints")
    described = read_run(run_dir)
    if newest is None:
        raise CheckpointError(f"{run_dir} has no checkpoint yet")
    try:
        sizes = ImageModel(**described["model"])
    except TypeError as error:
        raise CheckpointError(f"{run_dir / RUN_FILE} does not describe a model: {error}") from error
    sampler = sizes.build()
    sampler.load_state_dict(load_checkpoint(newest, ("ema",))["ema"]["model"])
    return sampler.eval().to(find_device(device)), sizes


def read_run(run_dir: Path) -> dict[str, Any]:
    """The content of a run's ``run.json``.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    path = run_dir / RUN_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{run_dir} is not the folder of a run: it has no {RUN_FILE}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    missing = [key for key in ("recipe", "arguments", "model") if not isinstance(content, dict) or key not in content]
    if missing:
        raise CheckpointError(f"{path} is damaged: it lacks {missing}")
    return content


def _plain(value: Any) -> str:
    """A path as JSON: the same folder is the same text."""
    return str(Path(value).resolve())


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    if before["recipe"] != now["recipe"]:
        raise CheckpointError(f"{run_dir} is a run of the recipe '{before['recipe']}', not '{now['recipe']}'")
    keys = sorted({*before["arguments"], *now["arguments"]})
    changed = [
        f"{key} was {before['arguments'].get(key)}, is {now['arguments'].get(key)}"
        for key in keys
        if before["arguments"].get(key) != now["arguments"].get(key)
    ]
    if changed:
        raise CheckpointError(
            f"{run_dir} was trained with other arguments ({'; '.join(changed)}); resume with the same ones, "
            "or choose another --run-dir"
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
