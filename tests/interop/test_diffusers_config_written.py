"""The schedulers that our samplers are written as: they are read as the same, and sample as ours."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_config_written import CLASSES
from tests.catalogue import TinyNetwork

SAMPLERS: dict[str, Callable[..., dl.Sampler]] = {
    **{kind.__name__: kind for kind in CLASSES},
    "UniPCSampler of order 3": functools.partial(dl.UniPCSampler, order=3),
    "DDPMSampler with large variance": functools.partial(dl.DDPMSampler, variance_value=1.0),
}
# On the noise level: those of diffusers scale the data by 1 / alpha
SCALED = ("EulerSampler", "EulerAncestralSampler", "HeunSampler")
# Their last step uses their history, or leaves noise, where ours ends at the last estimate
OTHER_END = ("PNDMSampler", "PLMSSampler", "DDPMSampler with large variance")
# At zero SNR: its class does not know it; and where theirs counts the first step as finite, which shows in the noise
NOT_AT_ZERO = ("HeunSampler", "DPMSolverPPSDE2MSampler")
# Draws in float32 always, and not in the dtype of the data
FLOAT32 = ("DPMSolverPPSDE2MSampler",)


def scaled_linear(zero: bool = False) -> dl.DiscreteGaussianSchedule:
    betas = dl.scaled_linear_beta_schedule(1000)
    return dl.DiscreteGaussianSchedule(dl.rescale_zero_terminal_snr(betas) if zero else betas)


def build(name: str, grid: Any, zero: bool = False, **options: Any) -> dl.Sampler:
    schedule = scaled_linear(zero)
    predictor = (dl.VPredictor if zero else dl.NoisePredictor)(schedule, **options)
    network = TinyNetwork().double()
    return SAMPLERS[name](network, schedule, predictor, eval_steps=8, grid=grid, progress_bar=False).eval()


def assert_read_back(sampler: dl.Sampler) -> dict[str, Any]:
    config = dl.to_diffusers_config(sampler)
    schedule, predictor, spacing = dl.from_diffusers_config(config)
    torch.testing.assert_close(schedule.betas, sampler.schedule.betas, rtol=1e-9, atol=0)
    assert type(predictor) is type(sampler.predictor)
    assert predictor.clamp == sampler.predictor.clamp
    for steps in (2, 8, 25):
        torch.testing.assert_close(spacing(schedule, steps), sampler.grid(schedule, steps), rtol=0, atol=1e-6)
    return config


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_written_is_read_as_the_same(name: str) -> None:
    """Every spacing that diffusers has for the class, with its own keys for the noise levels."""
    class_name = CLASSES[type(build(name, dl.trailing))][0]
    plain = {"_class_name": class_name, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    for keys in (
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"timestep_spacing": "leading", "steps_offset": 3},
        {"timestep_spacing": "linspace"},
        {"timestep_spacing": "linspace", "use_karras_sigmas": True},
    ):
        try:
            _, _, spacing = dl.from_diffusers_config({**plain, **keys})
        except ValueError:
            assert "use_karras_sigmas" in keys
            continue
        config = assert_read_back(build(name, spacing))
        assert config["_class_name"] == class_name
        assert config["timestep_spacing"] == keys["timestep_spacing"] or "use_karras_sigmas" in keys
        assert config.get("use_karras_sigmas", False) == keys.get("use_karras_sigmas", False)


@pytest.mark.parametrize(
    ("name", "zero"),
    [
        (name, zero)
        for name in SAMPLERS
        for zero in (False, True)
        if name not in OTHER_END and not (zero and name in NOT_AT_ZERO)
    ],
)
def test_diffusers_samples_as_ours_with_what_is_written(name: str, zero: bool) -> None:
    """At zero SNR its signal is 2^-12, and ours 0, from which they differ by about so much."""
    diffusers = pytest.importorskip("diffusers", reason="is the oracle here")
    sampler = build(name, dl.trailing, zero)
    config = dl.to_diffusers_config(sampler)
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    unknown = set(config) - set(inspect.signature(type(scheduler).__init__).parameters) - {"_class_name"}
    assert not unknown
    scheduler.set_timesteps(8)
    dtype = torch.float32 if name in FLOAT32 else torch.float64
    sampler.to(dtype)
    noise = torch.randn(2, 1, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
    x = noise * (math.sqrt(float(scheduler.sigmas[0]) ** 2 + 1) if name in SCALED else 1)
    draws = {"generator": torch.Generator().manual_seed(0)}
    if "generator" not in inspect.signature(scheduler.step).parameters:
        draws = {}
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t)
            output = sampler.model(scaled, t.expand(len(x)), None).prediction
            x = scheduler.step(output, t, x, **draws).prev_sample
        ours = sampler(noise, generator=torch.Generator().manual_seed(0))
    scale = ours.abs().max()
    torch.testing.assert_close(x.to(dtype) / scale, ours / scale, rtol=0, atol=4 * 2**-12 if zero else 1e-4)


def test_own_grids_that_diffusers_has_and_clamps() -> None:
    """Karras' levels between the ends of all times are those of diffusers; a threshold is that of DPM-Solver."""
    for name in ("EulerSampler", "HeunSampler", "UniPCSampler", "DPMSolverPP2MSampler"):
        assert assert_read_back(build(name, dl.karras))["use_karras_sigmas"]
    threshold = build("DPMSolverPP2MSampler", dl.trailing, clamp=dl.DynamicThreshold(0.9, limit=2.0))
    assert assert_read_back(threshold)["thresholding"]
    assert assert_read_back(build("HeunSampler", dl.trailing, clamp=dl.StaticClamp()))["clip_sample"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build("EulerSampler", dl.trailing, clamp=dl.StaticClamp()),
            "EulerDiscreteScheduler has no clip_sample",
        ),
        (lambda: build("HeunSampler", dl.trailing, zero=True), "without signal, at which HeunDiscreteScheduler is un"),
        (lambda: build("PNDMSampler", dl.karras), r"the grid is .*karras.*, which is not written for diffusers"),
        (
            lambda: build("EulerSampler", dl.at_times([*range(900, 100, -100)])),
            "the grid is .* is not written for diffusers",
        ),
        (
            lambda: dl.EulerAncestralSampler(TinyNetwork(), *process(), eta=0.5, grid=dl.trailing),
            r"eta \(0.5\) must be 1.0 for diffusers",
        ),
        (lambda: dl.PNDMSampler(TinyNetwork(), *process(), order=3), r"order \(3\) must be 4 for diffusers"),
        (lambda: dl.DPMSolver3Sampler(TinyNetwork(), *process()), "the sampler is a DPMSolver3Sampler, which is not"),
    ],
)
def test_what_diffusers_has_not_is_refused_by_name(make: Callable[[], dl.Sampler], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.to_diffusers_config(make())


def process() -> tuple[dl.Schedule, dl.Predictor]:
    schedule = scaled_linear()
    return schedule, dl.NoisePredictor(schedule)
