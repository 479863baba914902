"""The scheduler configuration of diffusers for one of our samplers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.interop.diffusers_classes import DEFAULTS
from diffusion_labs.interop.diffusers_config import from_diffusers_config
from diffusion_labs.interop.diffusers_discrete import PLACES
from diffusion_labs.predictors.clamp import DynamicThreshold, StaticClamp
from diffusion_labs.predictors.noise_predictor import NoisePredictor
from diffusion_labs.predictors.predictor import Clamp
from diffusion_labs.predictors.target_predictor import TargetPredictor
from diffusion_labs.predictors.v_predictor import VPredictor
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.dpm_solver_pp_2m import DPMSolverPP2MSampler
from diffusion_labs.samplers.dpm_solver_pp_sde_2m import DPMSolverPPSDE2MSampler
from diffusion_labs.samplers.euler import EulerSampler
from diffusion_labs.samplers.euler_ancestral import EulerAncestralSampler
from diffusion_labs.samplers.heun import HeunSampler
from diffusion_labs.samplers.plms import PLMSSampler
from diffusion_labs.samplers.pndm import PNDMSampler
from diffusion_labs.samplers.sampler import Sampler
from diffusion_labs.samplers.unipc import UniPCSampler
from diffusion_labs.schedules.betas import cosine_beta_schedule, linear_beta_schedule, scaled_linear_beta_schedule
from diffusion_labs.schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule

Keys = dict[str, Any]

PREDICTIONS: dict[type, str] = {NoisePredictor: "epsilon", TargetPredictor: "sample", VPredictor: "v_prediction"}
SPACINGS = ("trailing", "leading", "linspace")
COMPARED = (3, 7, 10)  # numbers of steps: grids that are equal there are the same one
_SECOND_ORDER: Keys = {"solver_order": 2, "lower_order_final": False, "final_sigmas_type": "zero"}


def to_diffusers_config(sampler: Sampler) -> dict[str, Any]:
    """The ``scheduler_config.json`` whose process, prediction, solver and times are those of a sampler.

    ``from_diffusers_config`` reads the same schedule, predictor and grid from it. Its last step lands on clean data, as
    ours: at the last estimate of it, or for ``PNDMScheduler`` at what that and the ones before say together.
    ``eval_steps``, and ``eta`` of ``DDIMSampler``, are no part of it: diffusers' pipelines are given them when they are
    called. Where it rounds the times of noise levels that it has placed (``use_karras_sigmas`` and those like it), its
    network is told another time than ours.

    Args:
        sampler: one of ``CLASSES`` on a ``DiscreteGaussianSchedule``.

    Raises:
        ValueError: naming the part that diffusers has not.
    """
    name, keys_of = _known("sampler", sampler, CLASSES)
    schedule: Any = sampler.schedule
    _known("schedule", schedule, {DiscreteGaussianSchedule: ""})
    config = {
        "_class_name": name,
        "num_train_timesteps": schedule.steps,
        **_betas(schedule.betas.double().cpu(), name),
        "prediction_type": _known("predictor", sampler.predictor, PREDICTIONS),
        **_clamp(sampler.predictor.clamp, name),
        **keys_of(sampler),
    }
    return {**config, **_spacing(config, sampler)}


def _known(what: str, value: Any, table: Mapping[type, Any]) -> Any:
    if type(value) not in table:
        names = [kind.__name__ for kind in table]
        raise ValueError(
            f"the {what} is a {type(value).__name__}, which is not written for diffusers; give one of {names}"
        )
    return table[type(value)]


def _betas(betas: Tensor, name: str) -> Keys:
    """By the name of a table and its ends, if it is one; or all of them."""
    steps, start, end = len(betas), betas[0].item(), betas[-1].item()
    tables = {
        "linear": partial(linear_beta_schedule, steps, start, end),
        "scaled_linear": partial(scaled_linear_beta_schedule, steps, start, end),
        "squaredcos_cap_v2": partial(cosine_beta_schedule, steps),
    }
    for table_name, table in tables.items():
        if torch.allclose(table(), betas, rtol=1e-9, atol=0):
            ends = {} if table_name == "squaredcos_cap_v2" else {"beta_start": start, "beta_end": end}
            return {"beta_schedule": table_name, **ends}
    trained: Keys = {"trained_betas": betas.tolist()}
    if end < 1:
        return trained
    if "rescale_betas_zero_snr" not in DEFAULTS[name]:
        raise ValueError(f"the schedule ends without signal, at which {name} is undefined; give one that does not")
    return {**trained, "rescale_betas_zero_snr": True}  # which they are; then diffusers avoids to divide by the signal


def _clamp(clamp: Clamp | None, name: str) -> Keys:
    keys: Keys = {"clip_sample": False, "thresholding": False}
    match clamp:
        case None:
            needed = ""
        case StaticClamp(low, high) if low == -high:
            needed = "clip_sample"
            keys |= {needed: True, "clip_sample_range": high}
        case DynamicThreshold(quantile, 1.0, limit):
            needed = "thresholding"
            keys |= {needed: True, "dynamic_thresholding_ratio": quantile, "sample_max_value": limit}
        case _:
            raise ValueError(
                f"the clamp is {clamp}, which diffusers has not; give StaticClamp(-bound, bound) or a threshold"
            )
    if needed and needed not in DEFAULTS[name]:
        raise ValueError(f"the clamp is {clamp}, but {name} has no {needed}; set it to None")
    return {key: value for key, value in keys.items() if key in DEFAULTS[name]}


def _spacing(config: Keys, sampler: Sampler) -> Keys:
    """The keys of the grid: those from which the same times are read."""
    grid: Any = sampler.grid
    refused = ValueError(
        f"the grid is {grid}, which is not written for diffusers; give trailing, leading or linspace, or what "
        f"from_diffusers_config reads for {config['_class_name']}"
    )
    given = grid.keywords if isinstance(grid, partial) else {}
    offsets = [given["offset"]] if "offset" in given else [1, 0]  # 1 is what pipelines ask for
    places: list[Keys] = [{}, *({key: True} for key in PLACES if key in DEFAULTS[config["_class_name"]])]
    counts = [count for count in COMPARED if count <= config["num_train_timesteps"]]

    def times(grid: Any) -> Tensor:
        return torch.cat([grid(sampler.schedule, count).double().cpu() for count in counts])

    try:
        wanted = times(grid)
    except ValueError as error:  # of given times, which have one number of steps
        raise refused from error
    for place in places:
        for spacing in SPACINGS:
            for offset in offsets:
                keys: Keys = {"timestep_spacing": spacing, "steps_offset": offset, **place}
                if torch.allclose(times(from_diffusers_config({**config, **keys}).spacing), wanted, rtol=0, atol=1e-6):
                    return keys
    raise refused


def _variance(sampler: Any) -> Keys:
    variances = {0.0: "fixed_small", 1.0: "fixed_large"}
    if sampler.variance_value not in variances:
        raise ValueError(f"variance_value ({sampler.variance_value}) must be one of {list(variances)} for diffusers")
    return {"variance_type": variances[sampler.variance_value]}


def _at(name: str, value: float, keys: Keys, sampler: Any) -> Keys:
    """Keys for a sampler that has one value of an argument, as diffusers has no key for it."""
    if getattr(sampler, name) != value:
        raise ValueError(f"{name} ({getattr(sampler, name)}) must be {value} for diffusers, which has no other")
    return keys


def _always(keys: Keys) -> Callable[[Any], Keys]:
    return lambda sampler: keys


def _unipc(sampler: Any) -> Keys:
    return {"solver_order": sampler.order, "solver_type": "bh2", "predict_x0": True, "final_sigmas_type": "zero"}


# The class that a sampler is written as, and what says how it solves
CLASSES: dict[type, tuple[str, Callable[[Any], Keys]]] = {
    DDIMSampler: ("DDIMScheduler", _always({"set_alpha_to_one": True})),
    DDPMSampler: ("DDPMScheduler", _variance),
    EulerSampler: ("EulerDiscreteScheduler", _always({"final_sigmas_type": "zero"})),
    EulerAncestralSampler: ("EulerAncestralDiscreteScheduler", partial(_at, "eta", 1.0, {})),
    HeunSampler: ("HeunDiscreteScheduler", _always({})),
    DPMSolverPP2MSampler: (
        "DPMSolverMultistepScheduler",
        _always({**_SECOND_ORDER, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"}),
    ),
    DPMSolverPPSDE2MSampler: (
        "DPMSolverMultistepScheduler",
        _always({**_SECOND_ORDER, "algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"}),
    ),
    UniPCSampler: ("UniPCMultistepScheduler", _unipc),
    PNDMSampler: (
        "PNDMScheduler",
        partial(_at, "order", 4, {"skip_prk_steps": False, "set_alpha_to_one": True}),
    ),
    PLMSSampler: (
        "PNDMScheduler",
        partial(_at, "order", 4, {"skip_prk_steps": True, "set_alpha_to_one": True}),
    ),
}
