"""Laws of every sampler, on every schedule, predictor and grid, against data that is known in closed form."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import (
    GRIDS,
    MORE_SETTINGS,
    PREDICTORS,
    SAMPLER_MODELS,
    SAMPLERS,
    SCHEDULES,
    SOLVERS,
    TinyNetwork,
)
from tests.contracts.test_predictors import DEFINED

IMAGE = torch.linspace(-0.9, 0.9, 12).reshape(1, 3, 2, 2)
GRIDS_BESIDES = [name for name in GRIDS if name not in ("trailing", "linspace")]
MEAN, STD = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, 0.8]])


# More tables and shifts of a schedule that is here anyway; `make test-slow` has them too.
MORE_OF_THE_SAME = (
    "linear",
    "shifted_cosine",
    "scaled_linear",
    "quadratic",
    "sigmoid",
    "shifted_flow",
    "flow_to_1000",
    "cosine_flow",
    "logit_normal_flow",
    "cauchy",
    "normal",
)
COMBINATIONS = [pair for pair in DEFINED if pair[0] != "short" or pair[1] == "v"]  # that is here for ``all_steps``
CHOSEN = [pytest.param(pair, id="-".join(pair)) for pair in COMBINATIONS if pair[0] not in MORE_OF_THE_SAME]
# Every parameterisation has the same path (test_invariance.py), and so the same law; `make test-slow` has them all, as
# many in one test as there are of a schedule: they are 17,000.
LAWS = [case for case in CHOSEN if case.values[0][1] == "v"]
EVERY_SCHEDULE = list(dict.fromkeys(schedule for schedule, _ in COMBINATIONS))


def of_schedule(schedule: str) -> list[tuple[str, str]]:
    """A schedule with each of the predictors that are defined on it."""
    return [pair for pair in COMBINATIONS if pair[0] == schedule]


# Every schedule has the same path of a mixture (test_invariance.py). Each solver has one of these here: with a table,
# of each scale, and one that ends in pure noise; `make test-slow` has all. The adaptive one calls its model often.
OF_EACH_KIND = ("rectified_flow", "cosine", "zero_terminal_snr", "variance_exploding")
MIXTURES = [
    pytest.param(
        sampler,
        schedule,
        marks=[] if schedule == ("rectified_flow" if sampler == "adaptive" else chosen) else [pytest.mark.slow],
    )
    for place, sampler in enumerate(name for name in SAMPLERS if name not in (*SAMPLER_MODELS, *MORE_SETTINGS))
    for chosen in [OF_EACH_KIND[place % len(OF_EACH_KIND)]]
    for schedule in SCHEDULES
    if schedule not in MORE_OF_THE_SAME
]


@cache
def process(schedule: str, predictor: str) -> tuple[dl.Schedule, dl.Predictor]:
    made = SCHEDULES[schedule]()
    return made, PREDICTORS[predictor](made)


class Gaussian(nn.Module):
    """``IdealDenoiser`` of one Gaussian (std 0 is a point), with numbers for coefficients where a batch has one time.

    ``E[x0 | xt] = mean + alpha std^2 / (alpha^2 std^2 + sigma^2) (xt - alpha mean)``. The matrix is mostly its time.
    """

    def __init__(self, predictor: dl.Predictor, mean: Tensor, std: Tensor | float = 0.0) -> None:
        super().__init__()
        self.predictor = predictor
        self.mean, self.variance = mean.double(), torch.as_tensor(std).double() ** 2
        self.known: dict[float, tuple[Tensor, float, float, float, float]] = {}

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: None = None) -> dl.DiffusionOutput:
        if len(x) > 1 and timestep.stride(0):
            gain, alpha, sigma, a, b = self.coefficients(self.predictor.schedule.at(timestep, x))
        else:
            t = timestep[0].item()
            if t not in self.known:
                self.known[t] = self.coefficients(self.predictor.schedule.levels(timestep[:1])[0])
            gain, alpha, sigma, a, b = self.known[t]
        xt = x.double()
        x0 = self.mean + gain * (xt - alpha * self.mean)
        return dl.DiffusionOutput((a * x0 + b / sigma * (xt - alpha * x0)).to(x.dtype))

    def coefficients(self, level: dl.NoiseLevel) -> tuple:
        _, alpha, sigma, _ = level
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return gain, alpha, sigma, *self.predictor.coefficients(alpha, sigma)


def model_for(sampler: str) -> Callable[..., nn.Module]:
    """The exact model of the kind that the sampler is for."""
    return SAMPLER_MODELS.get(sampler, Gaussian)


def build(sampler: str, schedule: str, predictor: str, model=None, **options) -> dl.Sampler:
    parts = process(schedule, predictor)
    model = model_for(sampler)(parts[1], IMAGE) if model is None else model(parts[1])
    return SAMPLERS[sampler](model, *parts, progress_bar=False, **options).eval()


@pytest.fixture
def unchecked():
    """No shape checks, which other tests make of the same code, and which double the time of the whole matrix."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@cache
def times(grid: str, schedule: str, steps: int | None) -> Tensor:
    """A grid's times: that of Beta quantiles costs more than the sampling here."""
    return GRIDS[grid](process(schedule, "target")[0], steps)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("schedule_predictor", CHOSEN)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_the_last_step_is_clean(sampler: str, schedule_predictor: tuple[str, str]) -> None:
    """Data that is one image, with its exact denoiser: no trace of noise is left. In float64; the next in float32.

    On a grid that ends far from clean data, and one that ends near to it: parameterisations differ in their last call.
    """
    assert_clean(sampler, schedule_predictor, ["trailing", "linspace"])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("schedule_predictor", LAWS)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_the_last_step_is_clean_for_every_grid(sampler: str, schedule_predictor: tuple[str, str]) -> None:
    """The same, wherever the steps are: on a fourth of the grids, so that each solver meets each of them."""
    first = list(SAMPLERS).index(sampler) + list(SCHEDULES).index(schedule_predictor[0])
    assert_clean(sampler, schedule_predictor, GRIDS_BESIDES[first % 4 :: 4])


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("schedule", EVERY_SCHEDULE)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_the_last_step_is_clean_in_every_combination(sampler: str, schedule: str) -> None:
    for pair in of_schedule(schedule):
        assert_clean(sampler, pair, ["trailing", "linspace", *GRIDS_BESIDES])


def assert_clean(sampler: str, schedule_predictor: tuple[str, str], grids: list[str]) -> None:
    schedule, _ = process(*schedule_predictor)
    x = schedule.sample_prior((2, 3, 2, 2), dtype=torch.float64)
    model = build(sampler, *schedule_predictor, eval_steps=1)
    seen = set()
    for name in grids:
        for steps in (1, 5):
            if name == "all_steps":
                if schedule.resolution == 0 or steps > 1 or schedule.terminal > 100:
                    continue  # it has no list of steps; or too many for all samplers
                steps = None
            chosen = times(name, schedule_predictor[0], steps)
            if tuple(chosen.tolist()) in seen:
                continue  # most grids of one call are the last time
            seen.add(tuple(chosen.tolist()))
            model.eval_steps, model.grid = len(chosen), lambda *_, t=chosen: t
            assert (model(x) - IMAGE).abs().max() < 1e-5, (schedule_predictor, name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("sampler", [name for name in SOLVERS if name != "adaptive"])  # which calls its model often
@pytest.mark.parametrize("schedule_predictor", LAWS)
def test_gaussian_data_is_drawn_with_its_mean_and_spread(sampler: str, schedule_predictor: tuple[str, str]) -> None:
    """After 50 steps in log-SNR, within the statistical error of 1,024 samples and a tenth of the spread.

    They are 64 samples of 16 independent pairs: a Langevin correction has its step size from the norm of a sample,
    and the right law only in many dimensions.
    """
    assert_gaussian(sampler, schedule_predictor)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("schedule", EVERY_SCHEDULE)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_gaussian_data_is_drawn_with_its_mean_and_spread_in_every_combination(sampler: str, schedule: str) -> None:
    for pair in of_schedule(schedule):
        assert_gaussian(sampler, pair)


def assert_gaussian(sampler: str, schedule_predictor: tuple[str, str]) -> None:
    n = 1024
    model = build(
        sampler,
        *schedule_predictor,
        lambda predictor: model_for(sampler)(predictor, MEAN.repeat(1, 16), STD.repeat(1, 16)),
        eval_steps=50,
        grid=dl.uniform_log_snr,
    )
    x = model(model.schedule.sample_prior((n // 16, 32), dtype=torch.float32)).reshape(n, 2)
    assert ((x.mean(0) - MEAN[0]).abs() < (4 / n**0.5 + 0.1) * STD[0]).all(), schedule_predictor
    assert ((x.std(0) / STD[0] - 1).abs() < 4 / (2 * n) ** 0.5 + 0.1).all(), schedule_predictor


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("sampler", "schedule"), MIXTURES)
def test_mixture_data_is_drawn_with_its_shares_and_moments(sampler: str, schedule: str) -> None:
    """Three components, 50 steps in log-SNR: the share of each, and the mean and covariance of all, as above."""
    n, weights = 1000, torch.tensor([0.5, 0.3, 0.2])
    means, std = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [0.8, -0.7]]), 0.15
    model = build(
        sampler,
        schedule,
        "v",
        lambda predictor: dl.IdealDenoiser(predictor, means, std, weights),
        eval_steps=50,
        grid=dl.uniform_log_snr,
    )
    x = model(model.schedule.sample_prior((n, 2)))
    mean = weights @ means
    covariance = (weights[:, None] * (means - mean)).T @ (means - mean) + std**2 * torch.eye(2)
    spread = covariance.diagonal().sqrt()
    shares = torch.cdist(x, means).argmin(1).bincount(minlength=3) / n
    assert ((shares - weights).abs() < 4 * (weights * (1 - weights) / n).sqrt() + 0.03).all(), shares
    assert ((x.mean(0) - mean).abs() < (4 / n**0.5 + 0.1) * spread).all()
    assert ((x.T.cov() - covariance).abs() < (4 * 2**0.5 / n**0.5 + 0.2) * spread[:, None] * spread).all()


def test_ddim_converges_at_first_order_to_the_exact_flow() -> None:
    """Gaussian data: the probability flow is x_s = m_s + (x_t - m_t) sqrt(v_s / v_t), in closed form."""
    mean, std = 0.5, 0.3
    errors = []
    for steps in (40, 80, 160):
        model = build(
            "ddim",
            "cosine",
            "v",
            lambda p: dl.IdealDenoiser(p, torch.tensor([[mean]]), std),
            eval_steps=steps,
        )
        start = model.times()[0]
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        alpha, sigma = model.schedule.alpha(start), model.schedule.sigma(start)
        exact = mean + std * (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2).sqrt()
        errors.append((model(x) - exact).abs().max().item())
    order = torch.tensor(errors).log2().diff().neg()
    assert (order > 0.85).all(), errors
    assert (order < 1.3).all(), errors


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_train_mode_is_the_model_and_eval_mode_the_last_of_generator(sampler: str) -> None:
    model = build(sampler, "cosine", "v", lambda _: TinyNetwork(), eval_steps=5)
    x, t, condition = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 999]), {"class": torch.tensor([0, 1, 2])}

    model.train()
    assert torch.equal(model(x, t, condition).prediction, model.model(x, t, condition).prediction)

    model.eval()
    path = list(model.generator(x, None, condition, generator=dl.seeded([1, 2, 3])))
    assert len(path) == 5
    assert torch.equal(model(x, t, condition, generator=dl.seeded([1, 2, 3])), path[-1])


@pytest.mark.parametrize("sampler", SOLVERS)
def test_the_image_of_a_seed_does_not_depend_on_its_batch(sampler: str) -> None:
    model = build(sampler, "cosine", "v", lambda p: dl.IdealDenoiser(p, torch.randn(5, 3, 2, 2), 0.1), eval_steps=10)

    def images(seeds: list[int]) -> torch.Tensor:
        generators = dl.seeded(seeds)
        noise = model.schedule.sample_prior((len(seeds), 3, 2, 2), generators, dtype=torch.float64)
        return model(noise, generator=generators)

    batch = images([5, 6, 7])
    torch.testing.assert_close(images([6])[0], batch[1])
    torch.testing.assert_close(images([9, 6])[1], batch[1])
    assert (batch[0] - batch[1]).abs().max() > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_caller_s_noise_is_left_alone(sampler: str) -> None:
    model = build(sampler, "cosine", "v", eval_steps=4)
    noise = torch.randn(2, 3, 2, 2)
    before = noise.clone()
    model(noise)
    assert torch.equal(noise, before)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_one_sampler_serves_several_threads(sampler: str) -> None:
    model = build(sampler, "cosine", "v", lambda p: dl.IdealDenoiser(p, torch.randn(5, 3, 2, 2), 0.1), eval_steps=10)
    noise = torch.randn(4, 1, 3, 2, 2)

    def draw(i: int) -> torch.Tensor:
        return model(noise[i], generator=dl.seeded([i]))

    alone = [draw(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_start_in_the_middle_goes_on_from_there(sampler: str) -> None:
    """The second half of a deterministic path, and clean data from any start."""
    model = build(sampler, "cosine", "v", eval_steps=10, grid=dl.trailing)
    assert model.times(start=500).tolist() == [500, 499, 399, 299, 199, 99]
    x = model.schedule.q_sample(IMAGE.double(), torch.randn_like(IMAGE.double()), torch.tensor(500))
    torch.testing.assert_close(model(x, start=500), IMAGE.double(), rtol=0, atol=1e-5)


def test_ddpm_is_ddim_with_eta_one() -> None:
    ddpm = build("ddpm", "linear", "noise", lambda p: dl.IdealDenoiser(p, torch.randn(4, 3, 2, 2), 0.2), eval_steps=20)
    ddim = dl.DDIMSampler(ddpm.model, ddpm.schedule, ddpm.predictor, eta=1.0, eval_steps=20, progress_bar=False).eval()
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(ddpm(x, generator=dl.seeded([1, 2, 3])), ddim(x, generator=dl.seeded([1, 2, 3])))


def test_predictors_agree_step_by_step_in_float32() -> None:
    """The same exact denoiser in any parameterisation gives the same trajectory.

    On a schedule with some signal left at the end: 1 / alpha is what noise prediction multiplies the last
    bit of float32 by.
    """
    data = torch.randn(4, 3, 2, 2)
    paths = []
    for predictor in PREDICTORS:
        model = build("ddim", "scaled_linear", predictor, lambda p: dl.IdealDenoiser(p, data, 0.3), eval_steps=20)
        noise = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(3))
        paths.append(torch.stack(list(model.generator(noise))))
    for path in paths[1:]:
        torch.testing.assert_close(path, paths[0], rtol=0, atol=2e-5)


def test_a_learned_variance_sets_the_noise_of_ddpm() -> None:
    """v = 0 and v = 1 are the fixed-small and fixed-large variances."""
    for v in (0.0, 1.0):
        fixed = dl.DDPMSampler(TinyNetwork(), *parts(), variance_value=v, eval_steps=6, progress_bar=False).eval()
        learned = copy.deepcopy(fixed)
        learned.variance_value = 0.3
        learned.model = WithVariance(fixed.model, v)
        x = torch.randn(3, 1, 8, 8)
        a, b = (model(x, generator=dl.seeded([1, 2, 3])) for model in (fixed, learned))
        torch.testing.assert_close(a, b)


def parts() -> tuple[dl.Schedule, dl.Predictor]:
    schedule = SCHEDULES["cosine"]()
    return schedule, dl.VPredictor(schedule, clamp=dl.StaticClamp())


class WithVariance(torch.nn.Module):
    """A model whose learned variance value is a constant."""

    def __init__(self, model: torch.nn.Module, value: float) -> None:
        super().__init__()
        self.model = model
        self.value = value

    def forward(self, x, timestep, conditional_inputs=None):
        output = self.model(x, timestep, conditional_inputs)
        return output._replace(variance_value=torch.full_like(x, self.value))


def test_ddpm_fills_the_moments_of_a_network_that_learns_the_variance() -> None:
    schedule, predictor = parts()
    model = dl.DDPMSampler(TinyNetwork(learned_variance=True), schedule, predictor).train()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    output = model(x, t)
    x0 = predictor.predict_x0(output.prediction, x, t)
    mean, log_variance = schedule.q_posterior(x0, x, t, output.variance_value)
    torch.testing.assert_close(output.mean, mean)
    torch.testing.assert_close(output.log_variance, log_variance)
    assert dl.DDPMSampler(TinyNetwork(), schedule, predictor).train()(x, t).mean is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s, p: dl.DDIMSampler(TinyNetwork(), s, p, eval_steps=0), r"eval_steps \(0\)"),
        (lambda s, p: dl.DDIMSampler(TinyNetwork(), s, p, eval_steps=1001), "strictly decreasing"),
        (lambda s, p: dl.DDIMSampler(TinyNetwork(), s, p, eta=1.5), r"eta \(1.5\)"),
        (lambda s, p: dl.DDPMSampler(TinyNetwork(), s, p, variance_value=-0.1), "variance_value"),
        (lambda s, p: dl.DDIMSampler(TinyNetwork(), SCHEDULES["linear"](), p), "another schedule"),
        (
            lambda s, p: dl.DDIMSampler(TinyNetwork(), s, p).train()(torch.zeros(1, 1, 8, 8)),
            "timestep is needed",
        ),
        (
            lambda s, p: dl.DDIMSampler(TinyNetwork(), s, p).eval()(torch.zeros(1, 1, 8, 8), start=1000),
            "start",
        ),
        (lambda s, p: dl.randn((2, 3), dl.seeded([1])), "1 generators for a batch of 2"),
    ],
)
def test_impossible_requests_are_named(make, message: str) -> None:
    schedule, predictor = parts()
    with pytest.raises(ValueError, match=message):
        make(schedule, predictor)
