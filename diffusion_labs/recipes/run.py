"""A run: a recipe carried out in a folder, and what is needed to use it afterwards."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusion_labs.files import write_json
from diffusion_labs.locking import sole_user
from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.kinds import sizes_of
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.stages import RUN_FILE, Stages, trained_weights
from diffusion_labs.spelling import nearest
from diffusion_labs.training import CheckpointError, find_device, latest_checkpoint, load_newest
from diffusion_labs.training.checkpoint import checkpoints, step_of

DATA = ("data_dir", "tars")  # arguments that say where data is


def prepare_run(name: str, arguments: Mapping[str, Any], run_dir: Path, *, resume: bool = False) -> Stages:
    """Build a recipe's stages for a folder, and write there what it is: ``run.json``.

    Args:
        name: of the recipe.
        arguments: of the recipe.
        run_dir: the run's folder; ``stages.carry_out(run_dir, options)`` comes next.
        resume: go on with the run that is in the folder, if there is one. Its arguments are as before, but ``steps``
            may be larger, and the path of the data another, where the checkpoints have its ``fingerprint``, by which
            ``carry_out`` refuses other data. ``run.json`` lists such changes.

    Raises:
        CheckpointError: if it is no folder, or holds a run and ``resume`` is off, or a run by another recipe or with
            other arguments; naming what differs.
        InUseError: if another process is in the folder.
        ValueError: for arguments that the recipe cannot use.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise CheckpointError(f"{run_dir} is a file; give the run a folder, --run-dir")
    if run_dir.exists() and os.environ.get("RANK", "0") == "0":  # of torchrun's processes, that which takes the folder
        with sole_user(run_dir):
            pass
    told: dict[str, Any] = {"recipe": name, "arguments": json.loads(json.dumps(dict(arguments), default=_plain))}
    if has_checkpoint(run_dir):
        if not resume:
            raise CheckpointError(f"{run_dir} already holds a run; add --resume to go on, or choose another --run-dir")
        before = read_run(run_dir)
        changes = _changes(before, told, run_dir)
        if listed := [*before.get("changes", []), *filter(None, [changes])]:
            told["changes"] = listed
    stages = find_recipe(name)(**arguments)
    versions = {package: version(package) for package in ("diffusion-labs", "torch")}
    model = {"parts": dict(stages.parts), "model": dict(stages.description)}
    write_json(run_dir / RUN_FILE, {**told, **model, "versions": versions})
    return stages


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run in this folder has saved anything."""
    return bool(_begun(run_dir))


def load_run(run_dir: Path, device: str = "cpu", *, sigma_rel: float | None = None) -> tuple[Any, Any]:
    """The trained model of a run, with averaged weights and in eval mode, and its sizes, mostly a ``ModelSizes``.

    A model of several parts, as DALL-E 2, has those of the stage that trained each.

    Args:
        run_dir: the run's folder.
        device: where the model is to be.
        sigma_rel: width of the average, of a run with snapshots, see ``post_hoc_ema``; the exponential one if ``None``.

    Raises:
        CheckpointError: if the folder is not that of a run, or has no whole checkpoint or no snapshots.
        ValueError: if there is no such device or width.
    """
    described = read_run(run_dir)
    weights: dict[str, Any] = {}
    for part, stage in described.get("parts", {"": described.get("stage", "")}).items():
        prefix = part and f"{part}."
        weights |= {prefix + name: value for name, value in trained_weights(run_dir / stage, sigma_rel).items()}
    try:
        sizes = sizes_of(described["model"])
    except ValueError as error:
        raise CheckpointError(f"{run_dir / RUN_FILE} does not describe a model: {error}") from error
    model = sizes.build()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise CheckpointError(f"{run_dir / RUN_FILE} describes another model than the checkpoint's: {what}") from error
    return model.eval().to(find_device(device)), sizes


def draws_images(run_dir: Path) -> bool:
    """Whether the model of a run draws images, as most do; those that are a part of a system make something else."""
    return isinstance(sizes_of(read_run(run_dir)["model"]), ModelSizes)


def read_run(run_dir: Path) -> dict[str, Any]:
    """The content of a run's ``run.json``.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    path = run_dir / RUN_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{run_dir} is not the folder of a run: {_instead(run_dir)}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    missing = [key for key in ("recipe", "arguments", "model") if not isinstance(content, dict) or key not in content]
    if missing:
        raise CheckpointError(f"{path} is damaged: it lacks {missing}")
    return content


def _instead(folder: Path) -> str:
    """What is there where no run is."""
    if folder.is_file():
        return "it is a file"
    if not folder.is_dir():
        runs = [path.parent.name for path in folder.parent.glob(f"*/{RUN_FILE}")]
        near = nearest(folder.name, runs)
        return f"it does not exist; did you mean '{folder.parent / near}'?" if near else "it does not exist"
    if (folder / "config.json").is_file():
        return (
            f"it has no {RUN_FILE}, but a model as `convert` and save_pretrained write it, which `diffusion-labs play` "
            "and from_pretrained open"
        )
    runs = [str(path.parent) for path in sorted(folder.glob(f"*/{RUN_FILE}"))]
    return f"it has no {RUN_FILE}; choose one of the runs in it: {', '.join(runs)}" if runs else f"it has no {RUN_FILE}"


def _plain(value: Any) -> str:
    """A path as JSON: the same folder is the same text."""
    return str(Path(value).resolve())


def _begun(run_dir: Path) -> list[Path]:
    """The folders of stages that have saved anything."""
    stages = [run_dir, *(path for path in run_dir.glob("*") if path.is_dir())]
    return [folder for folder in stages if latest_checkpoint(folder / "checkpoints") is not None]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """The arguments that are others than they were, and may be; empty if there are none."""
    if before["recipe"] != now["recipe"]:
        raise CheckpointError(f"{run_dir} is a run of the recipe '{before['recipe']}', not '{now['recipe']}'")
    was, is_now = before["arguments"], now["arguments"]
    changed = [key for key in sorted({*was, *is_now}) if was.get(key) != is_now.get(key)]
    refused = [key for key in changed if not _may_change(key, was.get(key), is_now.get(key), run_dir)]
    if refused:
        raise CheckpointError(
            f"{run_dir} was trained with other arguments "
            f"({'; '.join(f'{key} was {was.get(key)}, is {is_now.get(key)}' for key in refused)}); resume with the "
            "same ones, or choose another --run-dir. More steps are possible, and another path of the same data "
            "where checkpoints have its fingerprint"
        )
    if not changed:
        return {}
    done = {folder.name: step_of(checkpoints(folder / "checkpoints")[-1]) for folder in _begun(run_dir)}
    return {"steps_done": done, **{key: {"was": was.get(key), "is": is_now.get(key)} for key in changed}}


def _may_change(key: str, was: Any, now: Any, run_dir: Path) -> bool:
    """Whether a run can go on so. ``steps`` are those of the last stage, so no other has begun with its end."""
    if key == "steps":
        return isinstance(was, int) and isinstance(now, int) and now > was
    if key not in DATA:
        return False
    states = [load_newest(folder / "checkpoints", ("batches",)) for folder in _begun(run_dir)]
    return all(newest is not None and "data" in newest[1]["batches"] for newest in states)
