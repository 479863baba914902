"""Where samples differ from diffusers', what docs/migration.md says of it is the whole difference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.samplers.exponential import Point, lagrange, moment, step_size
from diffusion_labs.schedules.noise_level import weighted_sum
from tests.catalogue import TinyNetwork

diffusers = pytest.importorskip("diffusers", reason="is the oracle here")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

V = {"prediction_type": "v_prediction"}
MakeSampler = Callable[..., dl.Sampler]


class WholeTimes(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Any = None) -> dl.DiffusionOutput:
        return self.model(x, timestep.round(), conditional_inputs)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """It is sensitive to the time, as it must be for rounding to matter."""
    model = TinyNetwork()
    with torch.no_grad():
        model.conv.weight *= 3
    return model


@torch.no_grad()
def theirs(scheduler: Any, network: nn.Module, noise: Tensor, steps: int) -> Tensor:
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        times = torch.full((len(x),), float(t))
        x = scheduler.step(network(scheduler.scale_model_input(x, t), times).prediction, t, x).prev_sample
    return x


def opened(make: MakeSampler, scheduler: Any, network: nn.Module, steps: int) -> dl.Sampler:
    config = {"_class_name": type(scheduler).__name__, **scheduler.config}
    schedule, predictor, grid = dl.from_diffusers_config(config)
    return make(network, schedule, predictor, grid=grid, eval_steps=steps, progress_bar=False).eval()


def noise() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_placed_noise_levels_have_whole_times_there(network: nn.Module) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True, **V)
    expected = theirs(scheduler, network, noise(), 12)
    sample = lambda network: opened(dl.DPMSolverPP2MSampler, scheduler, network, 12)(noise())  # noqa: E731
    assert difference(sample(WholeTimes(network)), expected) < 2e-5 < difference(sample(network), expected)


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading"])
@pytest.mark.parametrize(("name", "make"), [("Euler", dl.EulerSampler), ("Heun", dl.HeunSampler)])
def test_those_of_k_diffusion_begin_with_less_noise_there(
    network: nn.Module, name: str, make: MakeSampler, spacing: str
) -> None:
    """``sigma_T`` times the noise, where ours, and theirs with ``leading``, has all of it."""
    scheduler = getattr(diffusers, f"{name}DiscreteScheduler")(timestep_spacing=spacing, **V)
    expected = theirs(scheduler, network, noise(), 12)
    sampler = opened(make, scheduler, network, 12)
    scaled = noise() * sampler.schedule.sigma(torch.tensor(sampler.schedule.terminal)).float()
    same, other = (noise(), scaled) if spacing == "leading" else (scaled, noise())
    assert difference(sampler(same), expected) < 2e-5 < difference(sampler(other), expected)


class HalfTheCurvature(dl.DPMSolverPP3MSampler):
    """Half of the second derivative of x0; with fewer than 15 steps, the last but one, as the second, is of 2M."""

    def step(self, xt: Tensor, t: Any, s: Any, past: Any, denoise: Any, noise: Any) -> tuple[Tensor, Any]:
        past = past or ()
        x0, eps, _ = denoise(xt, t)
        xs, h = weighted_sum(s.alpha, x0, s.sigma, eps), step_size(t, s)
        if past and (len(past) == 1 or (self.eval_steps < 15 and s.t == self.times()[-1])):
            before = past[0]
            xs = xs + s.alpha * moment(h, 0) / 2 * h / step_size(before.level, t) * (x0 - before.value)
        elif past:
            nodes = [0.0, *(1 + (p.level.log_snr - s.log_snr) / (s.log_snr - t.log_snr) for p in past)]
            weights = lagrange(nodes, [moment(h, 0), moment(h, 1), moment(h, 2) / 2])
            changes = (w * (p.value - x0) for w, p in zip(weights[1:], past, strict=True))
            xs = xs + s.alpha * sum(changes)
        return xs, (Point(t, x0), *past)[:2]


@pytest.mark.parametrize("steps", [10, 20])
def test_the_third_order_takes_half_of_the_curvature_there(network: nn.Module, steps: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, final_sigmas_type="zero", **V)
    expected = theirs(scheduler, network, noise(), steps)
    assert difference(opened(HalfTheCurvature, scheduler, network, steps)(noise()), expected) < 2e-5
    assert difference(opened(dl.DPMSolverPP3MSampler, scheduler, network, steps)(noise()), expected) > 1e-4
