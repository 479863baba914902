"""Post-hoc EMA: averages of any width, from snapshots of two (EDM2, https://arxiv.org/abs/2312.02696, section 3)."""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.training.checkpoint import CheckpointError, checkpoints, load_checkpoint, step_of
from diffusion_labs.training.ema import PowerEMA
from diffusion_labs.training.power_profile import PowerProfile, combination

SNAPSHOTS = "ema_snapshots"  # folder of a stage
NOTABLE = 0.1  # relative distance from the profile


def snapshot_of(averages: Sequence[PowerEMA]) -> dict[str, Any]:
    """What a snapshot holds: the averages, and once what is the same in all, buffers and frozen parameters."""
    states = [average.model.state_dict() for average in averages]
    trained = averages[0].trained
    return {
        "sigma_rel": [average.sigma_rel for average in averages],
        "common": {name: value for name, value in states[0].items() if name not in trained},
        **{
            _key(average.sigma_rel): {name: value for name, value in state.items() if name in trained}
            for average, state in zip(averages, states, strict=True)
        },
    }


def remove_later_snapshots(stage_dir: Path, step: int) -> None:
    """Remove what an interrupted run has left of the steps after a checkpoint, which are gone through again."""
    for path in checkpoints(stage_dir / SNAPSHOTS):
        if step_of(path) > step:
            shutil.rmtree(path)


def post_hoc_ema(stage_dir: Path, *, sigma_rel: float, step: int | None = None) -> dict[str, Tensor]:
    """The power-function average of a width that was not tracked, as a state dict.

    It is the sum of all averages in the snapshots up to ``step`` whose profile is nearest to that of the width, see
    ``combination``. They are read one at a time, and summed in float64. Buffers are those of the last one.

    Args:
        stage_dir: the folder of a stage of a run, or of the run itself where it has one stage.
        sigma_rel: the width, see ``PowerEMA``.
        step: of a snapshot, at which the average is taken; the last one if not given.

    Raises:
        CheckpointError: if there is no snapshot, or one is damaged.
        ValueError: if there is no such width, or no snapshot of this step.

    Example:
        >>> model.load_state_dict(post_hoc_ema(run_dir, sigma_rel=0.07))
    """
    folder = stage_dir / SNAPSHOTS
    paths = {step_of(path): path for path in checkpoints(folder)}
    if not paths:
        raise CheckpointError(f"{stage_dir} has no snapshots of averages; train with --ema-snapshot-every N")
    last = max(paths) if step is None else step
    if last not in paths:
        raise ValueError(f"step ({last}) must be that of a snapshot in {folder}: {', '.join(map(str, paths))}")

    read = {path: at for at, path in paths.items() if at <= last}
    averages = [(path, width) for path in read for width in _load(path, "sigma_rel")]
    profiles = [PowerProfile(read[path], width) for path, width in averages]
    coefficients, distance = combination(profiles, PowerProfile(last, sigma_rel))
    if distance > NOTABLE:
        warnings.warn(
            f"the average of sigma_rel {sigma_rel} at step {last} can only be made roughly: its profile is off by "
            f"{distance:.0%} with the {len(read)} snapshots in {folder}; it needs more of them, or of other widths",
            stacklevel=2,
        )
    total: dict[str, Tensor] = {}
    for (path, width), coefficient in zip(averages, coefficients, strict=True):
        weights: dict[str, Tensor] = _load(path, _key(width))
        for name, value in weights.items():
            total.setdefault(name, torch.zeros_like(value, dtype=torch.float64)).add_(value, alpha=coefficient)
    return {**_load(paths[last], "common"), **{name: value.to(weights[name].dtype) for name, value in total.items()}}


def _key(sigma_rel: float) -> str:
    return f"sigma_rel-{sigma_rel}"


def _load(path: Path, key: str) -> Any:
    try:
        return load_checkpoint(path, (key,))[key]
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove {path} to do without it") from error
