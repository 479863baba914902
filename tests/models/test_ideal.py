"""The exact denoiser against Tweedie's formula on torch's own densities."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import diffusion_labs as dl
from tests.catalogue import SCHEDULES

MEANS = torch.tensor([[-1.0, 0.5], [0.3, 0.3], [1.0, -1.0]], dtype=torch.float64)
STD = torch.tensor([[0.1, 0.3], [0.2, 0.2], [0.5, 0.05]], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
CLASSES = [0, 1, 1]


def denoised(ideal: dl.IdealDenoiser, xt: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
    return ideal.predictor.predict_x0(ideal(xt, t, conditions).prediction, xt, t)


def tweedie(schedule: dl.Schedule, xt: Tensor, t: int, keep: list[int]) -> Tensor:
    """``E[x0 | xt] = (xt + sigma^2 grad log p(xt)) / alpha`` for the components in ``keep``."""
    alpha, sigma = schedule.alpha(torch.tensor(t)), schedule.sigma(torch.tensor(t))
    spread = ((alpha * STD[keep]) ** 2 + sigma**2).sqrt()
    density = MixtureSameFamily(Categorical(WEIGHTS[keep]), Independent(Normal(alpha * MEANS[keep], spread), 1))
    point = xt.clone().requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(point).sum(), point)
    return (xt + sigma**2 * score) / alpha


@pytest.mark.parametrize("t", [0, 10, 300, 900])
def test_is_tweedie_s_formula_with_and_without_classes(t: int) -> None:
    schedule = SCHEDULES["linear"]()
    ideal = dl.IdealDenoiser(dl.VPredictor(schedule), MEANS, STD, WEIGHTS, CLASSES)
    xt, times = torch.randn(50, 2, dtype=torch.float64), torch.full((50,), t)
    cases = [({}, [0, 1, 2]), (2, [0, 1, 2]), (0, [0]), (1, [1, 2])]
    for label, keep in cases:
        conditions = {"class": torch.full((50,), label)} if isinstance(label, int) else {}
        expected = tweedie(schedule, xt, t, keep)
        torch.testing.assert_close(denoised(ideal, xt, times, **conditions), expected, rtol=1e-6, atol=1e-7)


def test_a_finite_data_set_denoises_to_its_nearest_point_at_low_noise() -> None:
    schedule = SCHEDULES["cosine"]()
    points = torch.randn(20, 1, 4, 4, dtype=torch.float64)
    ideal = dl.IdealDenoiser(dl.NoisePredictor(schedule), points)
    t = torch.full((20,), 20)
    xt = schedule.q_sample(points, torch.randn_like(points), t)
    torch.testing.assert_close(denoised(ideal, xt, t), points, atol=1e-6, rtol=0)


def test_pure_noise_denoises_to_the_mean() -> None:
    schedule = SCHEDULES["zero_terminal_snr"]()
    ideal = dl.IdealDenoiser(dl.VPredictor(schedule), MEANS, STD, WEIGHTS)
    x0 = denoised(ideal, torch.randn(5, 2, dtype=torch.float64), torch.full((5,), 999))
    torch.testing.assert_close(x0, (WEIGHTS / 6 @ MEANS).expand(5, 2))


def test_samples_have_the_mixture_s_moments() -> None:
    ideal = dl.IdealDenoiser(dl.VPredictor(SCHEDULES["cosine"]()), MEANS, STD, WEIGHTS)
    x = ideal.sample(40_000, torch.Generator().manual_seed(0))
    mean = WEIGHTS / 6 @ MEANS
    variance = WEIGHTS / 6 @ (STD**2 + MEANS**2) - mean**2
    assert ((x.mean(0) - mean).abs() < 5 * variance.sqrt() / 200).all()
    assert ((x.var(0) / variance - 1).abs() < 0.05).all()


def test_entries_must_match_the_components() -> None:
    with pytest.raises(ValueError, match="one entry for each of the 3 components"):
        dl.IdealDenoiser(dl.VPredictor(SCHEDULES["cosine"]()), MEANS, weights=[1.0, 2.0])
