"""Noise that is one Brownian path, whatever the grid."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import SAMPLERS, SCHEDULES

X = torch.zeros(2, 3, dtype=torch.float64)


def level(log_snr: float) -> dl.NoiseLevel:
    return dl.NoiseLevel(torch.tensor(0.0), 1.0, math.exp(-log_snr / 2), log_snr)


def test_increments_add_up() -> None:
    """``sqrt(c - a) n(a, c) = sqrt(b - a) n(a, b) + sqrt(c - b) n(b, c)`` in SNR, from pure noise on too."""
    noise = dl.BrownianNoise([5, 6])
    snr = [0.0, *(math.exp(value) for value in (-7.0, -1.3, -1.2, 4.0))]
    levels = [level(math.log(value) if value else -math.inf) for value in snr]
    for a in range(3):
        whole = math.sqrt(snr[-1] - snr[a]) * noise(X, levels[a], levels[-1])
        parts = (math.sqrt(snr[i + 1] - snr[i]) * noise(X, levels[i], levels[i + 1]) for i in range(a, 4))
        torch.testing.assert_close(sum(parts), whole, rtol=1e-9, atol=1e-9)


def test_increments_are_standard_normal_and_independent() -> None:
    """The squares over many places of one path: a chi-square with 300 x 64 degrees of freedom, and no correlation."""
    noise, x = dl.BrownianNoise([0]), torch.zeros(1, 64)
    levels = [level(-9 + 0.06 * i) for i in range(301)]
    draws = torch.cat([noise(x, *pair) for pair in pairwise(levels)])
    count = draws.numel()
    assert abs(draws.square().sum().item() - count) < 4 * (2 * count) ** 0.5
    assert abs(draws.mean().item()) < 4 / count**0.5
    assert abs((draws[1:] * draws[:-1]).mean().item()) < 4 / count**0.5


def test_depends_on_seed_and_place_only() -> None:
    """Not on the batch, on what was asked before, or on the object."""
    a, b = level(-2.0), level(1.0)
    noise = dl.BrownianNoise([5, 6, 7])
    noise(torch.zeros(3, 4, 4), level(3.0), level(3.5))
    batch = noise(torch.zeros(3, 4, 4), a, b)
    assert torch.equal(dl.BrownianNoise([6])(torch.zeros(1, 4, 4), a, b)[0], batch[1])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(noise(torch.zeros(3, 4, 4)), noise(torch.zeros(3, 4, 4)))


def endpoint(sampler: str, steps: int, means: Tensor, std: float, seeds: list[int]) -> Tensor:
    """x at the last level before clean data, from the path and the prior of the seeds."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    times = schedule.time(torch.linspace(-6, 5, steps + 1, dtype=torch.float64))
    model = SAMPLERS[sampler](
        dl.IdealDenoiser(predictor, means, std),
        schedule,
        predictor,
        eval_steps=steps + 1,
        grid=lambda *_: times,
        progress_bar=False,
    )
    x = schedule.sample_prior((len(seeds), 2), dl.seeded(seeds), dtype=torch.float64)
    return list(model.eval().generator(x, generator=dl.BrownianNoise(seeds)))[-2]


EXACT = ["ddpm", "euler_ancestral", "dpmpp_sde_2m", "dpmpp_sde_3m", "sa_solver"]  # on data that is one point


@pytest.mark.parametrize("sampler", EXACT)
def test_where_the_solver_is_exact_the_image_of_a_seed_is_that_of_every_grid(sampler: str) -> None:
    """Data that is one point: x0 does not change on the way, and what is left is the Brownian path."""
    point = torch.tensor([[0.5, -1.0]])
    torch.testing.assert_close(
        endpoint(sampler, 7, point, 0.0, [3]), endpoint(sampler, 40, point, 0.0, [3]), rtol=0, atol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_sde_2m", "dpmpp_sde_3m", "sa_solver"])
def test_the_image_of_a_seed_converges_with_the_steps(sampler: str) -> None:
    """Strongly, sample by sample; with independent noise it would not at all."""
    means = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]])
    seeds = list(range(16))
    fine = endpoint(sampler, 640, means, 0.4, seeds)
    errors = [(endpoint(sampler, steps, means, 0.4, seeds) - fine).norm(dim=1).mean().item() for steps in (20, 80)]
    assert errors[1] < errors[0] / 2.5, errors
    assert errors[1] < 0.06, errors


def test_a_wrong_number_of_seeds_is_named() -> None:
    with pytest.raises(ValueError, match="2 seeds, but x has a batch of 3"):
        dl.BrownianNoise([5, 6])(torch.zeros(3, 1))


@pytest.mark.parametrize("name", ["edm_stochastic", "lcm", "predictor_corrector", "repaint", "tcd"])
def test_an_object_gives_the_same_sample_again(name: str) -> None:
    """Also to samplers that draw noise that is none of the path's."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    model = dl.IdealDenoiser(predictor, torch.tensor([[0.5]]), 0.3)
    sampler = SAMPLERS[name](model, schedule, predictor, eval_steps=4, progress_bar=False).eval()
    noise, x = dl.BrownianNoise([5, 6]), torch.randn(2, 1)
    first = sampler(x, generator=noise)
    assert torch.equal(sampler(x, generator=noise), first)
    assert torch.equal(sampler(x, generator=dl.BrownianNoise([5, 6])), first)
