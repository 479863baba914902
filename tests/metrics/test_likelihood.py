"""Likelihoods against closed forms."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import diffusion_labs as dl
from tests.catalogue import PREDICTORS, SCHEDULES, TinyNetwork

MEAN, STD = torch.tensor([[0.5, -0.3, 0.2]]).double(), torch.tensor([[0.3, 0.8, 0.5]]).double()


def sampler(model: str, predictor: str, means: Tensor, std: Tensor) -> dl.Sampler:
    schedule = SCHEDULES[model]()
    made = PREDICTORS[predictor](schedule)
    network = dl.IdealDenoiser(made, means, std)
    return dl.DDIMSampler(network, schedule, made, eval_steps=2, progress_bar=False).eval()


def drawn(schedule: dl.Schedule) -> Normal:
    """What the flow makes of N(0, sigma_T^2): the data itself, but for the signal that is left at the last time.

    The flow of a Gaussian is affine: ``x0 = mean + std (x_T - alpha mean) / sqrt(alpha^2 std^2 + sigma^2)``.
    """
    alpha, sigma = (value(torch.tensor(schedule.terminal)) for value in (schedule.alpha, schedule.sigma))
    scale = STD / ((alpha * STD) ** 2 + sigma**2).sqrt()
    return Normal(MEAN - scale * alpha * MEAN, scale * sigma)


# Every predictor on one schedule of each scale, every schedule with one predictor; `make test-slow` has all pairs.
PAIRS = [
    pytest.param(
        schedule,
        predictor,
        marks=[]
        if predictor == "v" or schedule in ("cosine", "variance_exploding", "rectified_flow")
        else [pytest.mark.slow],
    )
    for schedule in SCHEDULES
    if schedule not in ("quadratic", "sigmoid", "short")
    for predictor in ("target", "v", "flow", "edm")
]


@pytest.mark.parametrize(("schedule", "predictor"), PAIRS)
def test_a_gaussian_s_is_its_closed_form(schedule: str, predictor: str) -> None:
    model = sampler(schedule, predictor, MEAN, STD)
    x = model.model.sample(5)
    exact = drawn(model.schedule).log_prob(x).sum(1)
    bits = dl.bits_per_dimension(dl.log_likelihood(model, x), x)
    torch.testing.assert_close(bits, dl.bits_per_dimension(exact, x), rtol=0, atol=1e-3)


def test_a_mixture_s_is_its_closed_form_and_integrates_to_one() -> None:
    means = torch.tensor([[-1.0], [0.4], [0.9]])
    model = sampler("rectified_flow", "v", means, torch.tensor([[0.3], [0.2], [0.25]]))
    x = torch.linspace(-3, 3, 241, dtype=torch.float64)[:, None]
    value = dl.log_likelihood(model, x)
    std = model.model.std.double()
    exact = MixtureSameFamily(Categorical(torch.ones(3)), Independent(Normal(means.double(), std), 1)).log_prob(x)
    torch.testing.assert_close(value.exp(), exact.exp(), rtol=1e-3, atol=1e-4)
    assert torch.trapezoid(value.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-3)


def test_hutchinson_s_estimate_is_unbiased() -> None:
    """The mean over 64 probes, within four standard errors of the exact trace; its values scatter."""
    torch.manual_seed(0)
    schedule = SCHEDULES["cosine"]()
    model = dl.DDIMSampler(
        TinyNetwork().double(), schedule, dl.VPredictor(schedule), eval_steps=2, progress_bar=False
    ).eval()
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    exact = dl.log_likelihood(model, x, rtol=1e-3, atol=1e-3)
    copies = x.expand(64, -1, -1, -1)
    trace = dl.HutchinsonTrace(copies, dl.seeded(range(64)))
    estimates = dl.log_likelihood(model, copies, trace=trace, rtol=1e-3, atol=1e-3)
    error = estimates.std(0) / 8
    assert (estimates.mean(0) - exact).abs() < 4 * error
    assert error > 0


def test_conditions_and_batches() -> None:
    """The value of a sample is that of its class, and does not depend on its batch."""
    schedule = SCHEDULES["edm"]()
    predictor = dl.NoisePredictor(schedule)
    network = dl.IdealDenoiser(predictor, torch.tensor([[-1.0], [1.0]]), 0.3, classes=[0, 1])
    model = dl.DDIMSampler(network, schedule, predictor, eval_steps=2, progress_bar=False).eval()
    x, label = torch.tensor([[0.9], [-0.7]], dtype=torch.float64), torch.tensor([1, 0])
    both = dl.log_likelihood(model, x, {"class": label})
    torch.testing.assert_close(dl.log_likelihood(model, x[1:], {"class": label[1:]}), both[1:], rtol=0, atol=1e-12)
    exact = Normal(2.0 * label - 1, 0.3).log_prob(x[:, 0])
    torch.testing.assert_close(both, exact.double(), rtol=0, atol=0.02)


def test_bits_of_eight_bit_images() -> None:
    """Uniform bytes have 8 bits each: the density of their dequantised values in [-1, 1] is 1 / 256 a bin."""
    x = torch.zeros(3, 1, 4, 4)
    log_density = torch.full((3,), -16 * math.log(256 * 2 / 255))
    torch.testing.assert_close(dl.bits_per_dimension(log_density, x, bin_width=2 / 255), torch.full((3,), 8.0))


def test_train_mode_is_refused() -> None:
    """Where dropout is on, conditions are dropped, and guidance is off."""
    model, x = sampler("cosine", "v", MEAN, STD).train(), torch.zeros(1, 3, dtype=torch.float64)
    for measure in (lambda: dl.log_likelihood(model, x), lambda: dl.invert(model, x), lambda: next(model.generator(x))):
        with pytest.raises(ValueError, match=r"DDIMSampler is in train mode; call .eval\(\) first"):
            measure()
