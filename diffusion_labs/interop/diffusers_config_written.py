"""The scheduler configuration of diffusers for one of our samplers."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.predictors.clamp import DynamicThreshold, StaticClamp
from diffusion_labs.predictors.noise_predictor import NoisePredictor
from diffusion_labs.predictors.predictor import Clamp
from diffusion_labs.predictors.target_predictor import TargetPredictor
from diffusion_labs.predictors.v_predictor import VPredictor
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.grids import leading, linspace, trailing
from diffusion_labs.samplers.sampler import Sampler
from diffusion_labs.schedules.betas import cosine_beta_schedule, linear_beta_schedule, scaled_linear_beta_schedule
from diffusion_labs.schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule

CLASSES: dict[type, str] = {DDIMSampler: "DDIMScheduler", DDPMSampler: "DDPMScheduler"}
PREDICTIONS: dict[type, str] = {NoisePredictor: "epsilon", TargetPredictor: "sample", VPredictor: "v_prediction"}
SPACINGS = {trailing: "trailing", leading: "leading", linspace: "linspace"}


def to_diffusers_config(sampler: Sampler) -> dict[str, Any]:
    """The ``scheduler_config.json`` whose process, prediction and times are those of a sampler.

    Its last step lands on clean data, as ours (``set_alpha_to_one``). ``eval_steps``, and ``eta`` of ``DDIMSampler``,
    are no part of it: diffusers' pipelines are given them when they are called.

    Args:
        sampler: a ``DDIMSampler`` or ``DDPMSampler`` on a ``DiscreteGaussianSchedule``.

    Raises:
        ValueError: naming the part that diffusers has not.
    """
    name = _known("sampler", sampler, CLASSES)
    schedule: Any = sampler.schedule
    _known("schedule", schedule, {DiscreteGaussianSchedule: ""})
    config = {
        "_class_name": name,
        "num_train_timesteps": schedule.steps,
        **_betas(schedule.betas.double().cpu()),
        "prediction_type": _known("predictor", sampler.predictor, PREDICTIONS),
        **_clamp(sampler.predictor.clamp),
        **_spacing(sampler.grid),
    }
    if isinstance(sampler, DDIMSampler):
        return {**config, "set_alpha_to_one": True}
    return {**config, "variance_type": _variance(sampler)}


def _known(what: str, value: Any, table: dict[type, str]) -> str:
    if type(value) not in table:
        names = [kind.__name__ for kind in table]
        raise ValueError(
            f"the {what} is a {type(value).__name__}, which is not written for diffusers; give one of {names}"
        )
    return table[type(value)]


def _betas(betas: Tensor) -> dict[str, Any]:
    """By the name of a table and its ends, if it is one; or all of them."""
    steps, start, end = len(betas), betas[0].item(), betas[-1].item()
    tables = {
        "linear": partial(linear_beta_schedule, steps, start, end),
        "scaled_linear": partial(scaled_linear_beta_schedule, steps, start, end),
        "squaredcos_cap_v2": partial(cosine_beta_schedule, steps),
    }
    for name, table in tables.items():
        if torch.allclose(table(), betas, rtol=1e-9, atol=0):
            ends = {} if name == "squaredcos_cap_v2" else {"beta_start": start, "beta_end": end}
            return {"beta_schedule": name, **ends}
    return {"trained_betas": betas.tolist()}


def _clamp(clamp: Clamp | None) -> dict[str, Any]:
    off = {"clip_sample": False, "thresholding": False}
    match clamp:
        case None:
            return off
        case StaticClamp(low, high) if low == -high:
            return {**off, "clip_sample": True, "clip_sample_range": high}
        case DynamicThreshold(quantile, 1.0, limit):
            return {**off, "thresholding": True, "dynamic_thresholding_ratio": quantile, "sample_max_value": limit}
    raise ValueError(f"the clamp is {clamp}, which diffusers has not; give StaticClamp(-bound, bound) or a threshold")


def _spacing(grid: Any) -> dict[str, Any]:
    offset = 1 if grid in (trailing, linspace) else 0  # 1 means nothing there, and is what pipelines ask for
    if isinstance(grid, partial) and grid.func is leading and set(grid.keywords) == {"offset"}:
        grid, offset = grid.func, grid.keywords["offset"]
    if grid not in SPACINGS:
        raise ValueError(f"the grid is {grid}, which is not written for diffusers; give trailing, leading or linspace")
    return {"timestep_spacing": SPACINGS[grid], "steps_offset": offset}


def _variance(sampler: Any) -> str:
    variances = {0.0: "fixed_small", 1.0: "fixed_large"}
    if sampler.variance_value not in variances:
        raise ValueError(f"variance_value ({sampler.variance_value}) must be one of {list(variances)} for diffusers")
    return variances[sampler.variance_value]
