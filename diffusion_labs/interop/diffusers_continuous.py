"""Diffusers' schedulers in continuous time: flow matching, EDM, and the SDEs."""

import math
from functools import partial
from typing import Any

from diffusion_labs.interop import diffusers_grids as grids
from diffusion_labs.interop.diffusers_discrete import PLACES, Parts, discrete, times_without_the_first
from diffusion_labs.interop.diffusers_keys import Config
from diffusion_labs.predictors.edm_predictor import EDMPredictor
from diffusion_labs.predictors.flow_predictor import FlowPredictor
from diffusion_labs.predictors.noise_predictor import NoisePredictor
from diffusion_labs.predictors.score_predictor import ScorePredictor
from diffusion_labs.predictors.target_predictor import TargetPredictor
from diffusion_labs.samplers.grids import karras, uniform_log_snr
from diffusion_labs.schedules.rectified_flow_schedule import RectifiedFlowSchedule
from diffusion_labs.schedules.variance_exploding_schedule import EDMSchedule
from diffusion_labs.schedules.variance_preserving_schedule import VariancePreservingSchedule


def flow_match(config: Config, image_seq_len: int | None) -> Parts:
    """Rectified flow, from ``sigma = 1`` to that of the first training step."""
    config.refuse("goes from data to noise; there is no such schedule here", "invert_sigmas")
    config.refuse("changes the resolution between steps; leave it out", "scale_factors")
    steps = config["num_train_timesteps"]
    shift = _shift(config, image_seq_len)
    least = 1 / steps
    if not config.get("use_dynamic_shifting"):
        least = shift * least / (1 + (shift - 1) * least)  # diffusers shifts it here, and in the grid again
    return _flow(config, shift, high=1.0, low=least, extra=0)


def _shift(config: Config, image_seq_len: int | None) -> float:
    """The shift, from the number of tokens where it is dynamic: mu is linear in it."""
    if not config.get("use_dynamic_shifting"):
        return config.get("shift", 1.0)
    if image_seq_len is None:
        raise config.refused("use_dynamic_shifting", "needs the number of tokens of an image; give image_seq_len")
    share = (image_seq_len - config["base_image_seq_len"]) / (
        config["max_image_seq_len"] - config["base_image_seq_len"]
    )
    mu = config["base_shift"] + share * (config["max_shift"] - config["base_shift"])
    return config.choose("time_shift_type", {"exponential": math.exp, "linear": float})(mu)


def multi_step(config: Config, ends: dict[str, Any]) -> Parts:
    """A multi-step solver: on betas, or with ``use_flow_sigmas`` on a rectified flow."""
    if not config["use_flow_sigmas"]:
        config.refuse("is for use_flow_sigmas; leave it out", "shift_terminal")
        return discrete(config, times_without_the_first)
    config.refuse("takes a shift that only a pipeline knows; set it to false, and flow_shift", "use_dynamic_shifting")
    config.refuse("mixes the betas with use_flow_sigmas; set one of them to false", *PLACES, "rescale_betas_zero_snr")
    return _flow(config, config["flow_shift"], **ends, extra=1)


def _flow(config: Config, shift: float, *, high: float, low: float, extra: int) -> Parts:
    schedule = RectifiedFlowSchedule(terminal=float(config["num_train_timesteps"]))
    make: Any = FlowPredictor
    if "prediction_type" in config.values:
        make = config.choose("prediction_type", {"flow_prediction": FlowPredictor, "sample": TargetPredictor})
    place = config.one_of(*PLACES)
    spacing = partial(
        grids.flow,
        high=high,
        low=low,
        extra=extra,
        shift=shift,
        end=config.get("shift_terminal"),
        place=None if place is None else PLACES[place],
    )
    return schedule, config.predictor(partial(make, schedule)), spacing


def edm(config: Config) -> Parts:
    """EDM; the network predicts F of its Eq. 7."""
    if config["prediction_type"] == "v_prediction":
        raise config.refused("prediction_type", "is -F; negate the output of the network, and set 'epsilon'")
    make = config.choose("prediction_type", {"epsilon": EDMPredictor})
    schedule = EDMSchedule(config["sigma_min"], config["sigma_max"])
    table = {"karras": partial(karras, rho=config["rho"]), "exponential": uniform_log_snr}
    predictor = config.predictor(partial(make, schedule, sigma_data=config["sigma_data"]))
    return schedule, predictor, config.choose("sigma_schedule", table)


def variance_exploding(config: Config) -> Parts:
    """The score of a variance-exploding SDE, whose network is told the noise level."""
    schedule = EDMSchedule(config["sigma_min"], config["sigma_max"])
    return schedule, ScorePredictor(schedule), partial(grids.geometric, end=config["sampling_eps"])


def variance_preserving(config: Config) -> Parts:
    """The variance-preserving SDE; the network predicts the noise, which the scheduler turns into the score."""
    schedule = VariancePreservingSchedule(config["beta_min"], config["beta_max"])
    return schedule, NoisePredictor(schedule), partial(grids.linspace_to, end=config["sampling_eps"])
