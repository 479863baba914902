"""Diffusers' schedulers with a table of betas."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffusion_labs.interop import diffusers_grids as grids
from diffusion_labs.interop.diffusers_keys import Config
from diffusion_labs.predictors.noise_predictor import NoisePredictor
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.predictors.target_predictor import TargetPredictor
from diffusion_labs.predictors.v_predictor import VPredictor
from diffusion_labs.samplers.grids import Grid, leading, linspace, trailing
from diffusion_labs.schedules.betas import (
    cosine_beta_schedule,
    linear_beta_schedule,
    rescale_zero_terminal_snr,
    scaled_linear_beta_schedule,
    sigmoid_beta_schedule,
)
from diffusion_labs.schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule
from diffusion_labs.schedules.schedule import Schedule

PREDICTORS = {"epsilon": NoisePredictor, "sample": TargetPredictor, "v_prediction": VPredictor}
PLACES = {
    "use_karras_sigmas": grids.karras_levels,
    "use_exponential_sigmas": grids.exponential_levels,
    "use_beta_sigmas": grids.beta_levels,
    "use_lu_lambdas": grids.exponential_levels,  # with rho = 1, the only one it has
}

Parts = tuple[Schedule, Predictor, Grid]


def discrete(config: Config, spacing: Callable[[Config, Schedule], Grid]) -> Parts:
    """The discrete schedule of the betas, what is predicted, and a spacing."""
    try:
        schedule = DiscreteGaussianSchedule(_betas(config))
    except ValueError as error:
        key = "beta_schedule" if config.get("trained_betas") is None else "trained_betas"
        raise config.refused(key, f"gives no schedule: {error}") from error
    make = config.choose("prediction_type", PREDICTORS)
    return schedule, config.predictor(partial(make, schedule)), spacing(config, schedule)


def whole_times(config: Config, schedule: Schedule) -> Grid:
    """Of DDPM, DDIM and those like them."""
    offset = config["steps_offset"]
    table = {"linspace": linspace, "leading": partial(leading, offset=offset), "trailing": trailing}
    return config.choose("timestep_spacing", table)


def both_ends_included(config: Config, schedule: Schedule) -> Grid:
    """Of UnCLIP."""
    return linspace


def distilled_times(config: Config, schedule: Schedule) -> Grid:
    """Of latent consistency models."""
    original = config["original_inference_steps"]
    if not isinstance(original, int) or not 0 < original <= config["num_train_timesteps"]:
        raise config.refused("original_inference_steps", "must be a number of steps from 1 to num_train_timesteps")
    return partial(grids.distilled, original=original)


def fractional_times(config: Config, schedule: Schedule) -> Grid:
    """Of the schedulers that come from k-diffusion."""
    if config.get("interpolation_type", "linear") != "linear":
        raise config.refused("interpolation_type", "takes noise levels that are not those of its times; set linear")
    if config.get("timestep_type", "discrete") != "discrete":
        raise config.refused("timestep_type", "is EDM with a network that predicts -F; set discrete if it is not")
    offset = config["steps_offset"]
    table = {"linspace": grids.fractional_linspace, "leading": partial(leading, offset=offset), "trailing": trailing}
    even = config.choose("timestep_spacing", table)
    return _placed(config, schedule, even, ends=even)


def times_without_the_first(config: Config, schedule: Schedule) -> Grid:
    """Of the multi-step solvers, which leave the first time to the last step."""
    steps = config["num_train_timesteps"]
    every = torch.arange(steps)
    count = int((schedule.log_snr(every) / 2 >= config.get("lambda_min_clipped", -math.inf)).sum())
    spacing = config.get("timestep_spacing", "linspace")
    if count < steps and spacing == "trailing":
        raise config.refused("lambda_min_clipped", "makes fewer steps of timestep_spacing='trailing'; set 'linspace'")
    table: dict[str, Grid] = {
        "linspace": partial(grids.open_linspace, count=count),
        "leading": partial(grids.open_leading, count=count, offset=config.get("steps_offset", 0)),
        "trailing": trailing,
    }
    even = config.choose("timestep_spacing", table) if "timestep_spacing" in config.values else table["linspace"]
    return _placed(config, schedule, even, ends=grids.both_ends)


def _placed(config: Config, schedule: Schedule, even: Grid, ends: Grid) -> Grid:
    """The even grid, or noise levels placed between its ends by one of the ``use_..._sigmas``."""
    place = config.one_of(*PLACES)
    if place is None:
        return even
    first, terminal = torch.tensor([schedule.first, schedule.terminal], dtype=torch.float64)
    low, high = (torch.exp(-schedule.log_snr(t) / 2).item() for t in (first, terminal))
    for key in ("sigma_min", "sigma_max"):
        sigma = config.get(key)
        if sigma is not None and not 0.999 * low <= sigma <= 1.001 * high:
            raise config.refused(key, f"is not among the noise levels of the betas, {low:.4g} to {high:.4g}")
    return partial(
        grids.placed, place=PLACES[place], ends=ends, high=config.get("sigma_max"), low=config.get("sigma_min")
    )


def _betas(config: Config) -> Tensor:
    """The betas, [T]; zero terminal SNR and the shift of CogVideoX's are part of them."""
    steps = config["num_train_timesteps"]
    trained = config.get("trained_betas")
    if trained is None:
        table: dict[str, Callable[[], Tensor]] = {"squaredcos_cap_v2": partial(cosine_beta_schedule, steps)}
        if "beta_start" in config.values:
            ends = (steps, config["beta_start"], config["beta_end"])
            table["linear"] = partial(linear_beta_schedule, *ends)
            table["scaled_linear"] = partial(scaled_linear_beta_schedule, *ends)
            table["sigmoid"] = partial(sigmoid_beta_schedule, *ends)
        betas: Tensor = config.choose("beta_schedule", table)()
    else:
        betas = torch.as_tensor(trained, dtype=torch.float64)
        if len(betas) != steps:
            raise config.refused("num_train_timesteps", f"must be the number of trained_betas, {len(betas)}")
    scale = config.get("snr_shift_scale", 1.0)
    if scale != 1:
        alpha_squared = (1 - betas).cumprod(0)
        alpha_squared = alpha_squared / (scale + (1 - scale) * alpha_squared)  # SNR / scale
        betas = 1 - alpha_squared / torch.cat([alpha_squared.new_ones(1), alpha_squared[:-1]])
    return rescale_zero_terminal_snr(betas) if config.get("rescale_betas_zero_snr") else betas
