"""diffusers' deterministic schedulers: on our grids in float64, and as they come.

On our grids their tables are replaced by float64 ones of the same noise levels, so that a scheduler is measured, not
its float32 tables; ``EulerDiscreteScheduler`` and the flow-matching and EDM Euler schedulers still step in float32.
Those that can go on to a noise of 0, do; for the others the estimate of clean data at the last time is the
sample. A scheduler works in coordinates of its own, with the same ratio of signal and noise.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.solvers.oracle import Problem
from benchmarks.solvers.ours import Case, grids

Coordinates = Callable[[Tensor], tuple[Tensor, Tensor]]  # from sigma / alpha to (alpha, sigma)


def preserving(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha^2 + sigma^2 = 1``."""
    return 1 / (1 + ratio**2).sqrt(), 1 / (1 + ratio**-2).sqrt()


def exploding(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha = 1``."""
    return torch.ones_like(ratio), ratio


def straight(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha + sigma = 1``."""
    return 1 / (1 + ratio), 1 / (1 + 1 / ratio)


class Kind(NamedTuple):
    """How a family of schedulers is driven.

    Attributes:
        coordinates: in which it steps.
        output: what the network gives, from ``(x0, x, alpha, sigma)``.
        repeat: how often its tables list every noise level but the first.
        listed: whether it is given its noise levels as a list: LMS integrates its weights slowly on tensors.
    """

    coordinates: Coordinates
    output: Callable[[Tensor, Tensor, float, float], Tensor]
    repeat: int = 1
    listed: bool = False


def clean_data(x0: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """x0."""
    return x0


def noise(x0: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """eps."""
    return (x - alpha * x0) / sigma


def velocity(x0: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """``eps - x0``."""
    return noise(x0, x, alpha, sigma) - x0


def rotation(x0: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """``alpha eps - sigma x0``."""
    return alpha * noise(x0, x, alpha, sigma) - sigma * x0


def preconditioned(x0: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """EDM's ``F = (x0 - c_skip x) / c_out`` with sigma_data = 0.5."""
    total = sigma**2 + 0.25
    return (x0 - 0.25 / total * x) * math.sqrt(total) / (0.5 * sigma)


MULTISTEP = Kind(preserving, clean_data)
SIGMA = Kind(exploding, noise)
TWICE = SIGMA._replace(repeat=2)
FLOW = Kind(straight, velocity)
EDM = Kind(exploding, preconditioned)
X0, ZERO = {"prediction_type": "sample"}, {"final_sigmas_type": "zero"}
PLUS = {**X0, **ZERO}
BH1 = {**X0, "solver_type": "bh1", "lower_order_final": False}  # not a number where it goes to a noise of 0
MINUS = {**X0, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "lower_order_final": False}

# name: class, options, kind, whether it goes on to clean data
ON_GRIDS: dict[str, tuple[str, dict[str, Any], Kind, bool]] = {
    "Euler": ("EulerDiscreteScheduler", {}, SIGMA, True),
    "Heun": ("HeunDiscreteScheduler", {}, TWICE, True),
    "KDPM2": ("KDPM2DiscreteScheduler", {"num_train_timesteps": 10}, TWICE, True),
    "LMS 4": ("LMSDiscreteScheduler", {}, SIGMA._replace(listed=True), True),
    "iPNDM": ("IPNDMScheduler", {}, Kind(preserving, rotation), True),
    **{f"DPM++ {n}M": ("DPMSolverMultistepScheduler", {"solver_order": n, **PLUS}, MULTISTEP, True) for n in (2, 3)},
    "DPM++ 2M heun": ("DPMSolverMultistepScheduler", {**PLUS, "solver_type": "heun"}, MULTISTEP, True),
    **{f"DPM {n}M": ("DPMSolverMultistepScheduler", {"solver_order": n, **MINUS}, MULTISTEP, False) for n in (2, 3)},
    **{f"DPM++ {n}S": ("DPMSolverSinglestepScheduler", {"solver_order": n, **PLUS}, MULTISTEP, True) for n in (2, 3)},
    **{f"DEIS {n}": ("DEISMultistepScheduler", {"solver_order": n, **X0}, MULTISTEP, False) for n in (2, 3)},
    **{f"UniPC {n} bh2": ("UniPCMultistepScheduler", {"solver_order": n, **PLUS}, MULTISTEP, True) for n in (1, 2, 3)},
    **{f"UniPC {n} bh1": ("UniPCMultistepScheduler", {"solver_order": n, **BH1}, MULTISTEP, False) for n in (1, 2, 3)},
    "SA-Solver, tau 0": ("SASolverScheduler", {"tau_func": lambda t: 0.0, **X0}, MULTISTEP, False),
    "EDM Euler": ("EDMEulerScheduler", {}, EDM, True),
    **{f"EDM DPM++ {n}M": ("EDMDPMSolverMultistepScheduler", {"solver_order": n}, EDM, True) for n in (2, 3)},
    "FlowMatch Euler": ("FlowMatchEulerDiscreteScheduler", {}, FLOW, True),
    "FlowMatch Heun": ("FlowMatchHeunDiscreteScheduler", {}, FLOW._replace(repeat=2), True),
}

STOCHASTIC: dict[str, tuple[str, dict[str, Any], Kind, bool]] = {
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", {}, SIGMA, True),
    "SDE-DPM++ 2M": ("DPMSolverMultistepScheduler", {**MINUS, "algorithm_type": "sde-dpmsolver++"}, MULTISTEP, False),
}
OWN_LAST_STEP = {"LMS 4", "iPNDM"}  # all others that go on to clean data take the estimate of it

SPACINGS: dict[str, dict[str, Any]] = {
    "its linspace": {"timestep_spacing": "linspace"},
    "its trailing": {"timestep_spacing": "trailing"},
    "its karras": {"use_karras_sigmas": True},
    "its exponential": {"use_exponential_sigmas": True},
    "its beta": {"use_beta_sigmas": True},
}
AS_THEY_COME: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": True}, [*SPACINGS][:2]),
    "PNDM": ("PNDMScheduler", {"set_alpha_to_one": True}, [*SPACINGS][:2]),
    "PNDM, no PRK": ("PNDMScheduler", {"set_alpha_to_one": True, "skip_prk_steps": True}, [*SPACINGS][:2]),
    "Heun": ("HeunDiscreteScheduler", {}, [*SPACINGS]),
    "LMS 4": ("LMSDiscreteScheduler", {}, [*SPACINGS]),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}, [*SPACINGS]),
    "DPM++ 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}, [*SPACINGS]),
    "DEIS 3": ("DEISMultistepScheduler", {"solver_order": 3}, [*SPACINGS]),
    "UniPC 2 bh2": ("UniPCMultistepScheduler", {"solver_order": 2}, [*SPACINGS]),
    "UniPC 3 bh2": ("UniPCMultistepScheduler", {"solver_order": 3}, [*SPACINGS]),
}


def quiet() -> None:
    """No warnings of settings that diffusers changes by itself."""
    from diffusers.utils import logging

    logging.set_verbosity_error()


def cases() -> Iterator[Case]:
    """Each scheduler on each grid."""
    quiet()
    for name, setting in ON_GRIDS.items():
        for grid_name, grid in grids().items():
            yield Case("diffusers", name, grid_name, partial(run, *setting, grid))
            if name in OWN_LAST_STEP:
                last = partial(run, *setting[:3], False, grid)
                yield Case("diffusers", f"{name}, estimate last", grid_name, last)


def stochastic_cases() -> Iterator[Case]:
    """Each stochastic scheduler on each grid, with torch's global generator."""
    quiet()
    for name, setting in STOCHASTIC.items():
        for grid_name, grid in grids().items():
            yield Case("diffusers", name, grid_name, partial(run, *setting, grid))


def stock_cases() -> Iterator[Case]:
    """Schedulers as they come, for the process of Stable Diffusion."""
    quiet()
    for name, (scheduler, options, spacings) in AS_THEY_COME.items():
        for spacing in spacings:
            yield Case("diffusers", name, spacing, partial(run_stock, scheduler, {**options, **SPACINGS[spacing]}))


def run(
    name: str,
    options: dict[str, Any],
    kind: Kind,
    clean: bool,
    grid: Callable[..., Tensor],
    problem: Problem,
    steps: int,
) -> Tensor:
    """The sample on one of our grids."""
    import diffusers

    times = grid(problem.schedule, steps)
    ratio = problem.schedule.sigma(times) / problem.schedule.alpha(times)
    alpha, sigma = kind.coordinates(ratio)
    x = problem.start * (alpha[0] / problem.schedule.alpha(times[0]))
    if clean or steps > 1:
        scheduler = getattr(diffusers, name)(**options)
        levels = give_grid(scheduler, kind, ratio, clean)
        x = follow(scheduler, kind, levels, problem, x)
    return x if clean else problem.oracle.denoise(x, alpha[-1].item(), sigma[-1].item())


def follow(
    scheduler: Any, kind: Kind, levels: list[tuple[float, float]], problem: Problem, x: Tensor, **options: Any
) -> Tensor:
    """Step through a scheduler's times."""
    for t, (alpha, sigma) in zip(scheduler.timesteps, levels, strict=True):
        scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else None  # it counts its calls
        x0 = problem.oracle.denoise(x, alpha, sigma)
        x = scheduler.step(kind.output(x0, x, alpha, sigma), t, x, **options).prev_sample
    return x


def give_grid(scheduler: Any, kind: Kind, ratio: Tensor, clean: bool) -> list[tuple[float, float]]:
    """Put noise levels into a scheduler's tables; return (alpha, sigma) of its calls."""
    count = len(ratio) if clean else len(ratio) - 1
    scheduler.set_timesteps(count if hasattr(scheduler, "order_list") else 2)  # any others' tables are all replaced
    end = torch.zeros(1, dtype=torch.float64)
    table = torch.cat([ratio, end]) if clean else ratio
    calls = torch.cat([ratio[:1], ratio[1:].repeat_interleave(kind.repeat)]) if clean else ratio[:-1]

    alpha, sigma = kind.coordinates(table)
    if hasattr(scheduler, "sigmas_interpol"):  # KDPM2 goes by the middles in log sigma
        middle = (ratio[1:] * ratio[:-1]).sqrt()
        calls = torch.cat([ratio[:1], torch.stack([middle, ratio[1:]], 1).flatten()])
        scheduler.sigmas_interpol = torch.cat([ratio[:1], middle.repeat_interleave(2), end, end])
    if hasattr(scheduler, "sigmas"):
        values = sigma if kind.coordinates is straight else table
        scheduler.sigmas = torch.cat([values[:1], values[1:-1].repeat_interleave(kind.repeat), values[-1:]])
    else:
        scheduler.alphas, scheduler.betas = alpha, sigma
    if kind.listed:
        scheduler.sigmas = scheduler.sigmas.tolist()
    # any distinct numbers, falling: the network is called at the noise levels, not at these
    scheduler.timesteps = torch.linspace(999, 1, len(calls), dtype=torch.float64)
    scheduler.set_begin_index(0)
    return [(a, s) for a, s in zip(*(v.tolist() for v in kind.coordinates(calls)), strict=True)]


def run_stock(name: str, options: dict[str, Any], problem: Problem, steps: int) -> Tensor:
    """The sample of a scheduler on its own times, the network predicting the noise."""
    import diffusers

    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = getattr(diffusers, name)(**betas, **options)
    scheduler.set_timesteps(steps)
    x = problem.start / problem.schedule.sigma(torch.tensor(problem.schedule.terminal)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        time = torch.as_tensor(t).double()
        alpha, sigma = problem.schedule.alpha(time).item(), problem.schedule.sigma(time).item()
        inputs = scheduler.scale_model_input(x, t)
        x0 = problem.oracle.denoise(inputs, alpha, sigma)
        x = scheduler.step(noise(x0, inputs, alpha, sigma), t, x).prev_sample
    return x
