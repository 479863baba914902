"""Laws of every density over training times, on schedules with steps and without."""

import copy
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import DENSITIES, SCHEDULES

CONTINUOUS = ("continuous_vp", "continuous_cosine", "laplace", "variance_exploding", "edm", "shifted_flow", "cauchy")
DISCRETE = ("linear", "zero_terminal_snr", "short")


# Further settings of a density that is here anyway; `make test-slow` has them too.
MORE_SETTINGS = ("edm", "logit_normal", "mode_of_the_ends", "loss_second_moment_of_normal")


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in MORE_SETTINGS else []) for name in DENSITIES]
)
def density(request: pytest.FixtureRequest) -> dl.Density:
    return DENSITIES[request.param]()


def share(density: dl.Density, schedule: dl.Schedule, t: Tensor) -> Tensor:
    """The density's F(t), truncated and normalised."""
    low, high = density.limits(schedule, t)
    return (density.cdf(schedule, t) - low) / (high - low)


def middles(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("name", CONTINUOUS)
def test_times_are_the_quantiles_of_the_density(density: dl.Density, name: str) -> None:
    """F goes from 0 to 1 over the trained times, its inverse is ``times``, its derivative ``exp(log_prob)``."""
    schedule, v = SCHEDULES[name](), middles(301)
    t = density.times(schedule, v)
    assert t.dtype == torch.float64
    assert t.min() >= schedule.first
    assert t.max() <= schedule.terminal
    assert (t.diff() > 0).all()
    density_of_t = density.log_prob(schedule, t).exp()
    rounding = torch.finfo(torch.float64).eps * t * density_of_t
    assert ((share(density, schedule, t) - v).abs() < 1e-8 + 4 * rounding).all()
    ends = torch.tensor([schedule.first, schedule.terminal], dtype=torch.float64)
    torch.testing.assert_close(share(density, schedule, ends), torch.tensor([0.0, 1.0], dtype=torch.float64))

    slope = torch.func.jvp(lambda t: share(density, schedule, t), (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(density_of_t, slope, rtol=1e-6, atol=0)
    outside = torch.tensor([schedule.first * 0.99, schedule.terminal * 1.01], dtype=torch.float64)
    assert (density.log_prob(schedule, outside) == -torch.inf).all()


@pytest.mark.parametrize("name", DISCRETE)
def test_steps_have_the_probability_of_their_cells(density: dl.Density, name: str) -> None:
    schedule, v = SCHEDULES[name](), middles(3001)
    steps = torch.arange(schedule.steps)
    probability = density.log_prob(schedule, steps).exp()
    torch.testing.assert_close(probability.sum(), torch.ones((), dtype=torch.float64))
    t = density.times(schedule, v)
    assert t.dtype == torch.int64
    after = probability.cumsum(0)
    assert (after[t] >= v - 1e-12).all()
    assert ((after - probability)[t] <= v + 1e-12).all()


@pytest.mark.parametrize("name", ["continuous_cosine", "edm", "short"])
@pytest.mark.parametrize("uniform", [dl.independent_uniform, dl.stratified_uniform])
def test_draws_follow_log_prob(density: dl.Density, name: str, uniform) -> None:
    """Kolmogorov and Smirnov's test at one in ten thousand; log_prob is summed over its cells, not F."""
    schedule, count = SCHEDULES[name](), 2000
    transform = dl.RandomDiffusionSteps(schedule, density, uniform=uniform)
    t = transform({"x": torch.zeros(count, 1)})["t"]
    if schedule.resolution == 0:
        edges = schedule.time(
            torch.linspace(
                *schedule.log_snr(torch.tensor([schedule.first, schedule.terminal], dtype=torch.float64)).tolist(),
                4001,
                dtype=torch.float64,
            )
        )
        middle = (edges[1:] + edges[:-1]) / 2
        probability = density.log_prob(schedule, middle).exp() * edges.diff()
        index = torch.searchsorted(edges, t) - 1
    else:
        probability = density.log_prob(schedule, torch.arange(schedule.steps)).exp()
        index = t
    assert probability.sum().item() == pytest.approx(1, abs=1e-3)
    empirical = torch.bincount(index.clamp(0, len(probability) - 1), minlength=len(probability)).cumsum(0) / count
    assert (empirical - probability.cumsum(0)).abs().max() < 2.2 / count**0.5


def test_schedules_draw_from_their_own_density() -> None:
    """Uniform times and steps, and EDM's truncated log-normal noise."""
    x = torch.zeros(2000, 1)
    assert stats.kstest(SCHEDULES["continuous_vp"]().sample_steps(x), stats.uniform(1e-3, 1 - 1e-3).cdf).pvalue > 1e-3
    count = torch.bincount(SCHEDULES["short"]().sample_steps(x), minlength=50)
    assert stats.chisquare(count).pvalue > 1e-3
    sigma = dl.EDMSchedule(0.1, 5.0, log_mean=-0.5, log_std=1.5).sample_steps(x)
    low, high = (math.log(end) + 0.5 for end in (0.1, 5.0))
    expected = stats.truncnorm(low / 1.5, high / 1.5, loc=-0.5, scale=1.5)
    assert stats.kstest(sigma.log(), expected.cdf).pvalue > 1e-3


def test_a_generator_reproduces_the_times() -> None:
    x = torch.zeros(8, 1)
    for schedule in (SCHEDULES["short"](), SCHEDULES["edm"]()):
        first, again, other = (schedule.sample_steps(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_stratified_numbers_have_one_in_each_stratum_and_are_uniform() -> None:
    x = torch.zeros(16, 1)
    batches = torch.stack([dl.stratified_uniform(x) for _ in range(300)])
    assert torch.equal((batches * 16).long().sort(1).values, torch.arange(16).expand(300, 16))
    for i in (0, 7, 15):
        assert stats.kstest(batches[:, i], "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (dl.NormalLogSNR(0.3, 2.0), stats.norm),
        (dl.LaplaceLogSNR(0.3, 2.0), stats.laplace),
        (dl.LogisticLogSNR(0.3, 2.0), stats.logistic),
        (dl.SechLogSNR(0.3, 2.0), stats.hypsecant),
        (dl.CauchyLogSNR(0.3, 2.0), stats.cauchy),
    ],
    ids=lambda value: type(value).__name__,
)
def test_distributions_are_scipy_s(density: dl.LogSNRDensity, expected) -> None:
    expected = expected(0.3, 2.0)
    log_snr = torch.linspace(-20, 20, 41, dtype=torch.float64)
    torch.testing.assert_close(density.above(log_snr), torch.as_tensor(expected.sf(log_snr)), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(density.log_pdf(log_snr), torch.as_tensor(expected.logpdf(log_snr)))
    v = torch.tensor([1e-9, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)
    torch.testing.assert_close(density.log_snr(v), torch.as_tensor(expected.isf(v)))
    assert density.log_snr(torch.zeros(1, dtype=torch.float64)) == torch.inf


@pytest.mark.parametrize("scale", [-1.0, -0.4, 0.0, 0.8, 1.29, 2 / (math.pi - 2)])
def test_mode_sampling_is_stable_diffusion_3_s(scale: float) -> None:
    """Its Eq. 20 as it is written there, on the straight lines where u is the time."""
    density, v = dl.ModeLogSNR(scale), middles(200)
    u = 1 - v - scale * (torch.cos(math.pi / 2 * v) ** 2 - 1 + v)
    torch.testing.assert_close((-density.log_snr(1 - v) / 2).sigmoid(), u)
    torch.testing.assert_close(density.above(-2 * u.logit()), 1 - v, rtol=0, atol=1e-10)


def test_logit_normal_times_are_stable_diffusion_3_s() -> None:
    """Sec. 3.1: ``exp(-(logit u - m)^2 / 2 s^2) / (s sqrt(2 pi) u (1 - u))``, on the straight lines."""
    u, m, s = middles(99), -0.4, 0.8
    formula = torch.exp(-((u.logit() - m) ** 2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi) * u * (1 - u))
    log_prob = dl.NormalLogSNR.logit_normal(m, s).log_prob(dl.RectifiedFlowSchedule(), u)
    torch.testing.assert_close(log_prob.exp(), formula)  # u < 0.001 has no mass in float64


@pytest.mark.parametrize(
    ("schedule", "density"),
    [
        (dl.RectifiedFlowSchedule, lambda: dl.LogisticLogSNR(0.0, 2.0)),
        (lambda: dl.RectifiedFlowSchedule(3.0), lambda: dl.LogisticLogSNR(-2 * math.log(3), 2.0)),
        (lambda: dl.RectifiedFlowSchedule(time_map=dl.CosineTimeMap()), lambda: dl.SechLogSNR(0.0, 2.0)),
        (
            lambda: dl.RectifiedFlowSchedule(time_map=dl.LogitNormalTimeMap(-0.5, 0.7)),
            lambda: dl.NormalLogSNR.logit_normal(-0.5, 0.7),
        ),
        (dl.CosineSchedule, lambda: dl.SechLogSNR(0.0, 2.0)),
        (lambda: dl.LaplaceSchedule(0.4, 0.9), lambda: dl.LaplaceLogSNR(0.4, 0.9)),
        (lambda: dl.DensitySchedule(dl.CauchyLogSNR(1.0, 2.0)), lambda: dl.CauchyLogSNR(1.0, 2.0)),
        (lambda: dl.DensitySchedule(dl.NormalLogSNR(1.0, 2.0)), lambda: dl.NormalLogSNR(1.0, 2.0)),
    ],
)
def test_uniform_times_of_a_schedule_are_a_density_of_log_snr(schedule, density) -> None:
    schedule, density, v = schedule(), density(), middles(99)
    t = dl.UniformTime().times(schedule, v)
    torch.testing.assert_close(density.times(schedule, v), t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(density.log_prob(schedule, t), dl.UniformTime().log_prob(schedule, t), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["continuous_vp", "edm", "laplace", "cosine_flow", "logit_normal_flow"])
def test_the_rate_is_the_derivative_of_log_snr(name: str) -> None:
    schedule = SCHEDULES[name]()
    t = schedule.first + (schedule.terminal - schedule.first) * torch.linspace(0.02, 0.98, 48, dtype=torch.float64)
    width = 1e-5 * (t - schedule.clean)
    slope = (schedule.log_snr(t + width) - schedule.log_snr(t - width)) / (2 * width)
    torch.testing.assert_close(schedule.log_snr_rate(t), slope, rtol=1e-5, atol=0)


def test_the_state_restores_the_draws(density: dl.Density) -> None:
    schedule, v = SCHEDULES["short"](), middles(400)
    other = copy.deepcopy(density)
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(density.state_dict())
    assert torch.equal(other.times(schedule, v), density.times(schedule, v))
    assert torch.equal(copy.deepcopy(density).half().times(schedule, v), density.times(schedule, v))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dl.NormalLogSNR(scale=0.0), r"scale \(0.0\) must be positive"),
        (lambda: dl.NormalLogSNR.edm(log_std=-1.0), r"log_std \(-1.0\) must be positive"),
        (lambda: dl.NormalLogSNR.logit_normal(std=0.0), r"std \(0.0\) must be positive"),
        (lambda: dl.CauchyLogSNR(mean=math.inf), r"mean \(inf\) must be finite"),
        (lambda: dl.UniformLogSNR(3.0, 2.0), r"log_snr_min \(3.0\) must be below log_snr_max \(2.0\)"),
        (lambda: dl.ModeLogSNR(2.0), r"scale \(2.0\) must lie in \[-1, 1.75"),
        (lambda: dl.LossSecondMoment(0), r"bins \(0\) must be at least 1"),
        (lambda: dl.LossSecondMoment(uniform=0.0), r"uniform \(0.0\) must lie in \(0, 1\]"),
        (lambda: dl.LossSecondMoment(history=0), r"history \(0\) must be at least 1"),
        (lambda: dl.AdaptiveLogSNR(decay=1.0), r"decay \(1.0\) must lie in \[0, 1\)"),
        (lambda: dl.LogitNormalTimeMap(std=-1.0), r"std \(-1.0\) must be positive"),
        (lambda: dl.RectifiedFlowSchedule(shift=0.0), r"shift \(0.0\) must be positive"),
        (lambda: dl.DensitySchedule(dl.UniformLogSNR()), "must increase from 0"),
        (lambda: dl.DensitySchedule(dl.NormalLogSNR(), 3.0, 2.0), r"log_snr_min \(3.0\) must be finite and below"),
        (
            lambda: dl.RandomDiffusionSteps(dl.RectifiedFlowSchedule(), dl.UniformLogSNR()),
            r"log_snr_min \(-inf\) must be finite on RectifiedFlowSchedule, whose terminal SNR is zero",
        ),
        (
            lambda: dl.ImportanceMean(dl.CosineSchedule(), dl.LossSecondMoment(10, dl.UniformLogSNR(20.0))),
            "UniformLogSNR has the mass 0 on the times of CosineSchedule",
        ),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
