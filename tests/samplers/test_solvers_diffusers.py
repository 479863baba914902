"""Multi-step solvers step by step against diffusers, with its float32 tables replaced by float64 ones."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import SAMPLERS, TinyNetwork
from tests.samplers.test_order import build, error, reference

diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # diffusers with new numpy
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # diffusers is to drop the solvers in the noise
]

OPTIONS = {"final_sigmas_type": "zero", "lower_order_final": False}
IN_NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "lower_order_final": False}
MULTISTEP = {
    "dpm_2m": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=2, **IN_NOISE),
    "dpm_3m": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=3, **IN_NOISE),
    "deis_2 as dpm_2m": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=2, solver_type="heun", **IN_NOISE),
    "dpmpp_2m": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=2, **OPTIONS),
    "unipc_1": lambda: diffusers.UniPCMultistepScheduler(solver_order=1, final_sigmas_type="zero"),
    "unipc_2": lambda: diffusers.UniPCMultistepScheduler(solver_order=2, final_sigmas_type="zero"),
    "unipc_3": lambda: diffusers.UniPCMultistepScheduler(solver_order=3, final_sigmas_type="zero"),
    "deis_2": lambda: diffusers.DEISMultistepScheduler(solver_order=2, lower_order_final=False),
    "deis_3": lambda: diffusers.DEISMultistepScheduler(solver_order=3, lower_order_final=False),
}


def give_grid(scheduler, sampler: dl.Sampler, repeat: int = 1) -> Tensor:
    """Set the grid of a scheduler to that of a sampler, in float64; returns alpha at the grid's points."""
    times = sampler.times()
    alpha, sigma = sampler.schedule.alpha(times), sampler.schedule.sigma(times)
    scheduler.set_timesteps(len(times))
    sigmas, times = ((v[:1], v[1:].repeat_interleave(repeat)) for v in (sigma / alpha, times))
    scheduler.sigmas = torch.cat([*sigmas, torch.zeros(1, dtype=torch.float64)])
    scheduler.timesteps = torch.cat(times).double()
    scheduler.set_begin_index(0)
    return alpha


def tiny(name: str, steps: int) -> dl.Sampler:
    schedule = dl.DiscreteGaussianSchedule(dl.scaled_linear_beta_schedule(1000))
    network, predictor = TinyNetwork().double(), dl.NoisePredictor(schedule)
    return SAMPLERS[name](network, schedule, predictor, eval_steps=steps, progress_bar=False).eval()


@torch.no_grad()
def prediction(sampler: dl.Sampler, x: Tensor, t: Tensor) -> Tensor:
    return sampler.model(x, t.expand(len(x)), None).prediction


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize("name", MULTISTEP)
def test_multi_step_solvers(name: str, steps: int) -> None:
    sampler, scheduler = tiny(name.split()[0], steps), MULTISTEP[name]()
    give_grid(scheduler, sampler)
    x = noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    for t, ours in list(zip(scheduler.timesteps, sampler.generator(noise), strict=True))[:-1]:
        x = scheduler.step(prediction(sampler, x, t), t, x).prev_sample
        assert_same(ours, x)


@pytest.mark.parametrize("name", ["plms", "pndm"])
def test_pndm(name: str) -> None:
    """On the grid of theirs, where its stride divides T; theirs yields every x at which it calls the network."""
    sampler, steps = tiny(name, 10), 10
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=name == "plms", timestep_spacing="trailing")
    scheduler.alphas_cumprod = sampler.schedule.alpha(torch.arange(1000)) ** 2
    scheduler.set_timesteps(steps)
    x = noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    path = []
    for t in scheduler.timesteps[:-1]:
        x = scheduler.step(prediction(sampler, x, t), t, x).prev_sample
        path.append(x)
    path = path[1:] if name == "plms" else [*path[3:12:4], *path[12:]]
    for ours, theirs in zip(list(sampler.generator(noise))[:-1], path, strict=True):
        assert_same(ours, theirs)


def test_ipndm() -> None:
    """Theirs has a table of its own and expects v; both are replaced."""
    sampler, scheduler = tiny("ipndm", 10), diffusers.IPNDMScheduler()
    scheduler.set_timesteps(10)
    alpha, sigma = sampler.schedule.alpha(sampler.times()), sampler.schedule.sigma(sampler.times())
    scheduler.alphas, scheduler.betas = alpha, sigma
    scheduler.set_begin_index(0)
    x = noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    for i, ours in enumerate(list(sampler.generator(noise))[:-1]):
        v = (prediction(sampler, x, sampler.times()[i]) - sigma[i] * x) / alpha[i]
        x = scheduler.step(v, scheduler.timesteps[i], x).prev_sample
        assert_same(ours, x)


def test_heun() -> None:
    """Theirs goes in x / alpha and lists every noise level but the first twice."""
    sampler, scheduler = tiny("heun", 8), diffusers.HeunDiscreteScheduler()
    alpha = give_grid(scheduler, sampler, repeat=2)
    noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    x, path = noise / alpha[0], []
    for t in scheduler.timesteps[:-1]:
        x = scheduler.step(prediction(sampler, scheduler.scale_model_input(x, t), t), t, x).prev_sample
        path.append(x)
    for ours, theirs, scale in zip(list(sampler.generator(noise))[:-1], path[1::2], alpha[1:], strict=True):
        assert_same(ours, scale * theirs)


def test_where_the_published_3m_is_of_second_order_ours_is_of_third() -> None:
    """Both from an exact start: theirs takes half of the second derivative of x0."""

    def theirs(steps: int) -> float:
        sampler = build("dpmpp_3m", steps + 1)
        scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, prediction_type="v_prediction", **OPTIONS)
        give_grid(scheduler, sampler)
        path = reference(steps + 1)
        x = path[0]
        for i, t in enumerate(scheduler.timesteps[:-1]):
            x = path[i] if i <= 3 else x
            x = scheduler.step(prediction(sampler, x, t), t, x).prev_sample
        return (x - path[-1]).norm(dim=1).mean().item()

    for measure, low, high in ((theirs, 1.7, 2.3), (lambda steps: error("dpmpp_3m", steps, 3), 2.85, 3.4)):
        errors = torch.tensor([measure(steps) for steps in (40, 80)])
        order = (errors[0] / errors[1]).log2().item()
        assert low < order < high, (order, errors)


@pytest.mark.parametrize("steps", [7, 20])
def test_sde_2m(steps: int) -> None:
    sampler = tiny("dpmpp_sde_2m", steps)
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=2, algorithm_type="sde-dpmsolver++", **OPTIONS)
    give_grid(scheduler, sampler)
    x = noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    theirs = torch.Generator().manual_seed(0)
    path = sampler.generator(noise, generator=torch.Generator().manual_seed(0))
    for t, ours in list(zip(scheduler.timesteps, path, strict=True))[:-1]:
        fresh = torch.randn(x.shape, dtype=x.dtype, generator=theirs)
        x = scheduler.step(prediction(sampler, x, t), t, x, variance_noise=fresh).prev_sample
        assert_same(ours, x)


def test_euler_ancestral() -> None:
    """Theirs goes in x / alpha."""
    sampler, scheduler = tiny("euler_ancestral", 8), diffusers.EulerAncestralDiscreteScheduler()
    alpha = give_grid(scheduler, sampler)
    noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    x, theirs = noise / alpha[0], torch.Generator().manual_seed(0)
    path = list(sampler.generator(noise, generator=torch.Generator().manual_seed(0)))
    for t, ours, scale in zip(scheduler.timesteps[:-1], path[:-1], alpha[1:], strict=True):
        output = prediction(sampler, scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, generator=theirs).prev_sample
        assert_same(ours, scale * x)


def exact_integrals(scheduler):
    """SA-Solver of diffusers without what it adds to the weights of two estimates, which grows with the step."""
    integrals = scheduler.get_coefficients_fn

    def weights(order: int, start: Tensor, end: Tensor, points: list[Tensor], tau: float) -> list[Tensor]:
        result = integrals(order, start, end, points, tau)
        if order == 2 and len(points) == 2:
            rate, h = 1 + tau**2, end - start
            slope = h**2 / 2 - (h * rate - 1 + torch.exp(-rate * h)) / rate**2
            added = torch.exp(rate * end) * slope / (points[0] - points[1])
            result = [result[0] - added, result[1] + added]
        return result

    scheduler.get_coefficients_fn = weights
    return scheduler


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("orders", [(1, 2), (2, 2), (3, 3), (3, 4), (2, 4), (3, 2)])
def test_sa_solver(orders: tuple[int, int], tau: float) -> None:
    schedule = dl.DiscreteGaussianSchedule(dl.scaled_linear_beta_schedule(1000))
    sampler = dl.SASolverSampler(
        TinyNetwork().double(),
        schedule,
        dl.NoisePredictor(schedule),
        tau=lambda level: tau if level.t > 300 else 0.7 * tau,
        predictor_order=orders[0],
        corrector_order=orders[1],
        eval_steps=12,
        progress_bar=False,
    ).eval()
    scheduler = diffusers.SASolverScheduler(
        predictor_order=orders[0],
        corrector_order=orders[1],
        tau_func=lambda t: tau if t > 300 else 0.7 * tau,
        lower_order_final=False,
    )
    give_grid(exact_integrals(scheduler), sampler)
    x = noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    theirs, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)

    def same(*_: object) -> Tensor:  # theirs draws noise in steps of tau = 0, too
        return torch.randn(noise.shape, dtype=noise.dtype, generator=draws)

    for t, ours in list(zip(scheduler.timesteps, sampler.generator(noise, generator=same), strict=True))[:-1]:
        x = scheduler.step(prediction(sampler, x, t), t, x, generator=theirs).prev_sample
        assert_same(ours, x)
