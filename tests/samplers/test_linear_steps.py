"""Solvers as tables: the sums of the table give the solver's own images."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.samplers.linear_steps import LinearSteps, linear_steps
from tests.catalogue import SAMPLERS, SCHEDULES, SOLVERS, TinyNetwork

NOT_LINEAR = ("adaptive", "predictor_corrector")
SHAPE = (2, 1, 4, 4)


def build(name: str, schedule: str, steps: int = 6, **options: bool) -> dl.Sampler:
    made = SCHEDULES[schedule]()
    predictor = dl.VPredictor(made, clamp=dl.StaticClamp())
    model = TinyNetwork(**options).double()
    return SAMPLERS[name](model, made, predictor, eval_steps=steps, progress_bar=False).eval()


class Noises:
    """Noise by the number of calls of the network before it, and of draws since."""

    def __init__(self, sampler: dl.Sampler) -> None:
        self.drawn: list[list[Tensor]] = [[]]
        self.generator = torch.Generator().manual_seed(0)
        sampler.model.register_forward_hook(lambda *_: self.drawn.append([]))

    def __call__(self, x: Tensor, t: dl.NoiseLevel | None, s: dl.NoiseLevel | None) -> Tensor:
        self.drawn[-1].append(torch.randn(x.shape, generator=self.generator, dtype=x.dtype))
        return self.drawn[-1][-1]


def weighed(sampler: dl.Sampler, steps: LinearSteps, x: Tensor, drawn: list[list[Tensor]]) -> Tensor:
    """The formula of ``LinearSteps``."""
    weigh: Callable[[Tensor, list[Tensor]], Tensor] = lambda w, parts: sum(a * b for a, b in zip(w, parts, strict=True))  # noqa: E731
    xt, terms = weigh(steps.first, [x, *drawn[0]]), []
    for t, level, weights, noises in zip(steps.times, steps.levels, steps.weights, drawn[1:], strict=True):
        x0, eps, _ = dl.Sampler.denoiser(sampler)(xt, dl.NoiseLevel(t, *level))
        missing = [torch.zeros_like(x)] * (weights.shape[1] - 3 - len(noises))
        terms = [[xt, x0, eps, *noises, *missing], *terms][: len(weights)]
        xt = sum(weigh(w, parts) for w, parts in zip(weights, terms, strict=False))
    return xt


@pytest.mark.parametrize("name", [case for case in SOLVERS if case.values[0] not in NOT_LINEAR])
@pytest.mark.parametrize("schedule", ["continuous_cosine", "zero_terminal_snr"])
def test_the_sums_are_the_solver(name: str, schedule: str) -> None:
    sampler = build(name, schedule)
    steps, noises = linear_steps(sampler), Noises(sampler)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, drawn = sampler(x, generator=noises), list(noises.drawn)
    torch.testing.assert_close(weighed(sampler, steps, x, drawn), expected, rtol=5e-8, atol=5e-8)


def test_ddim_is_two_numbers_a_step() -> None:
    """``x_s = alpha_s x0 + sigma_s eps`` (arXiv 2010.02502, Eq. 12 with eta = 0); at last, x0."""
    sampler = build("ddim", "scaled_linear", steps=4)
    steps, schedule = linear_steps(sampler), sampler.schedule
    times = torch.tensor([999, 749, 499, 249])
    assert torch.equal(steps.times, times)
    to = torch.cat([times[1:], torch.tensor([-1])])
    expected = torch.stack([torch.zeros(4), schedule.alpha(to), schedule.sigma(to)], dim=1)
    torch.testing.assert_close(steps.weights[:, 0], expected.double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_solver_that_looks_at_the_estimates_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="weighs its estimates by what they are"):
        linear_steps(build(name, "continuous_cosine"))


def test_a_learned_variance_is_refused_where_it_is_used() -> None:
    ddpm, ddim = (build(name, "continuous_cosine", learned_variance=True) for name in ("ddpm", "ddim"))
    with pytest.raises(ValueError, match="DDPMSampler weighs its estimates"):
        linear_steps(ddpm, learns_variance=True)
    assert linear_steps(ddim, learns_variance=True).weights.shape == (6, 1, 3)
