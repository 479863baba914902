"""Schedules, predictors and grids from the scheduler configurations of diffusers, without diffusers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_labs.interop import diffusers_continuous as continuous
from diffusion_labs.interop import diffusers_discrete as discrete
from diffusion_labs.interop.diffusers_keys import Config
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.grids import Grid
from diffusion_labs.schedules.schedule import Schedule

FILE = "scheduler_config.json"


class DiffusersParts(NamedTuple):
    """The process, what the network predicts, and where it is called: ``Sampler(..., grid=spacing)``."""

    schedule: Schedule
    predictor: Predictor
    spacing: Grid


def from_diffusers_config(
    config: Mapping[str, Any] | str | Path, *, image_seq_len: int | None = None
) -> DiffusersParts:
    """The schedule, predictor and grid of times that a ``scheduler_config.json`` of diffusers describes.

    Every key is used, concerns only the choice of a sampler (``SOLVER_KEYS``), or is refused by name; what the
    file leaves out has the default of its class. diffusers need not be installed. Samplers here always end at
    the estimate of clean data, so ``set_alpha_to_one`` and ``final_sigmas_type``, with which diffusers can
    leave the noise of the first time in a sample, change nothing.

    The network is called with x_t and the sampler's times, which are:

    - for discrete schedules the steps 0 .. T - 1, also fractional ones; x_t is variance preserving, as the
      network expects it, whether or not the scheduler of diffusers scales its input;
    - for flow matching ``num_train_timesteps * sigma``, as diffusers gives them;
    - for EDM the noise level sigma and x_t itself: a network of diffusers expects ``c_in x`` and ``log(sigma) / 4``
      (for ``CosineDPMSolverMultistepScheduler`` ``2 atan(sigma) / pi``), which an adapter around it computes;
    - for ``ScoreSdeVeScheduler`` sigma, for ``ScoreSdeVpScheduler`` t in [0, 1].

    Args:
        config: the keys, the file, or a folder with the file, itself or in ``scheduler/``.
        image_seq_len: number of tokens of an image, which ``use_dynamic_shifting`` needs.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented, its value, and what to do.

    Example:
        >>> schedule, predictor, spacing = from_diffusers_config("stable-diffusion/scheduler")
        >>> sampler = DDIMSampler(model, schedule, predictor, grid=spacing, eval_steps=50)
    """
    values = config if isinstance(config, Mapping) else json.loads(_find(Path(config)).read_text())
    checked = Config(values)
    return DiffusersParts(*READERS[checked.name](checked, image_seq_len))


def _find(path: Path) -> Path:
    for candidate in (path, path / FILE, path / "scheduler" / FILE):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path} is neither a {FILE} nor a folder that holds one, itself or in scheduler/")


Reader = Callable[[Config, int | None], discrete.Parts]


def _discrete(spacing: Callable[[Config, Schedule], Grid]) -> Reader:
    return lambda config, _: discrete.discrete(config, spacing)


def _multi_step(ends: Callable[[int], dict[str, float]]) -> Reader:
    return lambda config, _: continuous.multi_step(config, ends(config["num_train_timesteps"]))


def _alone(read: Callable[[Config], discrete.Parts]) -> Reader:
    return lambda config, _: read(config)


_DPM_FLOW = _multi_step(lambda steps: {"high": 1 - 1 / steps, "low": 0.0})

READERS: dict[str, Reader] = {
    **dict.fromkeys(
        (
            "DDIMScheduler",
            "DDIMParallelScheduler",
            "DDPMScheduler",
            "DDPMParallelScheduler",
            "PNDMScheduler",
            "CogVideoXDDIMScheduler",
            "CogVideoXDPMScheduler",
        ),
        _discrete(discrete.whole_times),
    ),
    "UnCLIPScheduler": _discrete(discrete.both_ends_included),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), _discrete(discrete.distilled_times)),
    **dict.fromkeys(
        (
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "HeunDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "DPMSolverSDEScheduler",
            "LMSDiscreteScheduler",
        ),
        _discrete(discrete.fractional_times),
    ),
    **dict.fromkeys(
        (
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "DEISMultistepScheduler",
            "SASolverScheduler",
        ),
        _DPM_FLOW,
    ),
    "UniPCMultistepScheduler": _multi_step(lambda steps: {"high": 1.0, "low": 1 / steps}),
    **dict.fromkeys(
        (
            "FlowMatchEulerDiscreteScheduler",
            "FlowMatchHeunDiscreteScheduler",
            "FlowMatchLCMScheduler",
            "LTXEulerAncestralRFScheduler",
        ),
        continuous.flow_match,
    ),
    **dict.fromkeys(
        ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler"),
        _alone(continuous.edm),
    ),
    "ScoreSdeVeScheduler": _alone(continuous.variance_exploding),
    "ScoreSdeVpScheduler": _alone(continuous.variance_preserving),
}
