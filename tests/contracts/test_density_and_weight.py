"""A density and a weight are two things: the expected loss stays when one is exchanged for the other.

And densities that adapt: what they learn from losses, and that they stay unbiased.
"""

from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import DENSITIES, PREDICTORS, SCHEDULES, learned


def middles(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def quadrature(density: dl.Density) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]: Gauss and Legendre's between edges that are dense towards both ends.

    The edges of bins, where an adaptive density jumps, are among them.
    """
    edges = torch.linspace(-30, 30, 61, dtype=torch.float64).sigmoid()
    edges[0], edges[-1] = 0, 1
    if hasattr(density, "probabilities"):
        edges = torch.cat([edges, density.probabilities().cumsum(0).clamp(max=1)]).unique()
    nodes, weights = (torch.as_tensor(values) for values in np.polynomial.legendre.leggauss(8))
    width = edges.diff()[:, None]
    return (edges[:-1, None] + width * (nodes + 1) / 2).flatten(), (width * weights / 2).flatten()


def weighted_loss(predictor: dl.Predictor, t: Tensor, weighting, mean) -> Tensor:
    """``SimpleLoss`` of a model that is not exact, on one pair of data and noise, at all the times ``t``."""
    generator = torch.Generator().manual_seed(1)
    x0, noise, means = (torch.randn(3, 4, generator=generator, dtype=torch.float64)).unbind()
    x0, noise = (value.expand(len(t), 4) for value in (x0, noise))
    model = dl.IdealDenoiser(predictor, means[None], 0.7)
    xt = predictor.schedule.q_sample(x0, noise, t)
    batch = {"x": x0, "noise": noise, "t": t, "xt": xt, "target": predictor.target(x0, noise, t)}
    loss = dl.SimpleLoss(predictor if weighting else None, weighting, mean=mean)
    return loss(model(xt, t), batch)


PAIRS = [
    ("uniform_time", "normal"),
    ("normal", "uniform_time"),
    ("logistic", "sech"),
    ("uniform_time", "loss_second_moment"),
    ("normal", "loss_second_moment_of_normal"),
    ("logit_normal", "cauchy"),
]


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize(("intended", "drawn"), PAIRS)
def test_exchanging_density_for_weight_keeps_the_expected_loss(predictor: str, intended: str, drawn: str) -> None:
    """Integrated over the times of either density: once as they are, once with the ratio as weight."""
    schedule = SCHEDULES["continuous_cosine"]()
    predictor = PREDICTORS[predictor](schedule)
    intended, drawn = DENSITIES[intended](), DENSITIES[drawn]()
    importance = dl.ImportanceMean(schedule, drawn, intended)
    for weighting in (None, dl.P2(), dl.Sigmoid()):
        v, weights = quadrature(intended)
        plain = weighted_loss(
            predictor, intended.times(schedule, v), weighting, lambda t, losses, w=weights: (w * losses).sum()
        )
        v, weights = quadrature(drawn)
        exchanged = weighted_loss(
            predictor,
            drawn.times(schedule, v),
            weighting,
            lambda t, losses, w=weights: (w * importance.ratio(t) * losses).sum(),
        )
        assert exchanged.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("drawn", ["normal", "laplace", "loss_second_moment"])
def test_exchanging_density_for_weight_keeps_the_sum_over_steps(drawn: str) -> None:
    schedule, drawn, intended = SCHEDULES["short"](), DENSITIES[drawn](), dl.UniformTime()
    importance = dl.ImportanceMean(schedule, drawn)
    steps = torch.arange(schedule.steps)
    predictor = dl.VPredictor(schedule)
    plain = weighted_loss(predictor, steps, dl.MinSNR(), lambda t, losses: losses.mean())
    probability = drawn.log_prob(schedule, steps).exp()
    exchanged = weighted_loss(
        predictor, steps, dl.MinSNR(), lambda t, losses: (probability * importance.ratio(t) * losses).sum()
    )
    torch.testing.assert_close(exchanged, plain)
    torch.testing.assert_close(importance.ratio(steps), 1 / (50 * probability))  # uniform is 1 / T
    torch.testing.assert_close(dl.ImportanceMean(schedule, intended).ratio(steps), torch.ones(50, dtype=torch.float64))


@pytest.mark.parametrize("uniform", [dl.independent_uniform, dl.stratified_uniform])
@pytest.mark.parametrize("name", ["continuous_cosine", "short"])
def test_the_mean_of_drawn_batches_is_the_expected_loss(name: str, uniform) -> None:
    """Monte Carlo, through the transform and the loss of training, within five standard errors."""
    schedule = SCHEDULES[name]()
    drawn = learned(dl.LossSecondMoment(50))
    v, weights = quadrature(dl.UniformTime())
    losses_of = {}

    def estimate(mean, t: Tensor) -> Tensor:
        return weighted_loss(dl.VPredictor(schedule), t, dl.MinSNR(), mean)

    if name == "short":
        expected = estimate(None, torch.arange(50))
    else:
        times = dl.UniformTime().times(schedule, v)
        expected = estimate(lambda t, losses: (weights * losses).sum(), times)
    transform = dl.RandomDiffusionSteps(schedule, drawn, uniform=uniform)
    t = transform({"x": torch.zeros(20_000, 1)})["t"]
    importance = dl.ImportanceMean(schedule, drawn).eval()
    value = estimate(importance, t)
    estimate(lambda t, losses: losses_of.setdefault("all", losses).mean(), t)
    spread = (importance.ratio(t) * losses_of["all"]).std().item()
    assert abs(value.item() - expected.item()) < 5 * spread / 20_000**0.5


def test_importance_sampling_by_the_second_moment_has_the_least_variance() -> None:
    """With p_t in proportion to the loss, every term of the estimate is the same."""
    schedule, steps = SCHEDULES["short"](), torch.arange(50)
    losses = torch.linspace(1, 30, 50, dtype=torch.float64)
    density = dl.LossSecondMoment(50, uniform=1e-9)
    importance = dl.ImportanceMean(schedule, density).train()
    for _ in range(10):
        torch.testing.assert_close(importance(steps, losses), losses.mean())  # uniform until all are full
    terms = importance.ratio(steps) * losses
    torch.testing.assert_close(terms, losses.mean().expand(50), rtol=1e-6, atol=0)


def test_the_second_moment_is_improved_ddpm_s() -> None:
    """Against the paper's procedure, one loss at a time: the last ten of each step, Eq. 18, a uniform share."""
    schedule = SCHEDULES["short"]()
    density = dl.LossSecondMoment(50, history=10, uniform=0.001)
    last = [deque(maxlen=10) for _ in range(50)]
    generator = torch.Generator().manual_seed(0)
    for batch in range(36):
        t = torch.randint(50, (64,), generator=generator) if batch % 3 else torch.full((64,), batch % 50)
        losses = torch.rand(64, generator=generator) * (1 + t)
        density.observe(schedule, t, losses)
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            last[step].append(loss)
        probability = density.log_prob(schedule, torch.arange(50)).exp()
        if min(len(values) for values in last) < 10:
            expected = torch.full((50,), 1 / 50, dtype=torch.float64)
        else:
            root = torch.tensor([sum(x**2 for x in values) / 10 for values in last], dtype=torch.float64).sqrt()
            expected = 0.999 * root / root.sum() + 0.001 / 50
        torch.testing.assert_close(probability, expected)
    assert min(len(values) for values in last) == 10


def test_adaptive_log_snr_follows_the_mean_loss() -> None:
    """Losses that depend on log-SNR alone, and noise on them: the density becomes their share, with a floor."""
    schedule = SCHEDULES["continuous_vp"]()
    density = dl.AdaptiveLogSNR(bins=8, decay=0.99, uniform=0.2)
    ends = schedule.log_snr(torch.tensor([schedule.first, schedule.terminal], dtype=torch.float64))
    edges = torch.linspace(*ends.tolist(), 9, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    mean = torch.tensor([5.0, 1, 2, 8, 4, 1, 1, 2], dtype=torch.float64)
    for _ in range(60):
        t = density.times(schedule, torch.rand(256, dtype=torch.float64))
        index = (edges[1:-1, None] >= schedule.log_snr(t)).sum(0)
        density.observe(schedule, t, mean[index] * (0.5 + torch.rand(256)))
    expected = 0.8 * mean / mean.sum() + 0.2 / 8
    actual = density.probabilities()
    torch.testing.assert_close(actual, expected, rtol=0.15, atol=0)
    pdf = density.log_prob(schedule, schedule.time(centres)) - (-schedule.log_snr_rate(schedule.time(centres))).log()
    torch.testing.assert_close(pdf.exp(), actual / (edges[0] - edges[1]))  # piecewise constant over log-SNR


def test_adaptive_means_are_moving_means_and_skip_what_is_not_finite() -> None:
    schedule, steps = SCHEDULES["short"](), torch.arange(50)
    density = dl.AdaptiveLogSNR(bins=1, decay=0.9)
    total = weight = 0.0
    for batch in range(3):
        losses = torch.rand(50, dtype=torch.float64)
        density.observe(schedule, steps, torch.where(steps == batch, torch.nan, losses))
        kept = 0.9**49
        total = kept * total + (1 - kept) * (losses.sum() - losses[batch]) / 49
        weight = kept * weight + (1 - kept)
    torch.testing.assert_close(density.total / density.weight, (total / weight)[None])


@pytest.mark.parametrize("name", [pytest.param("loss_second_moment", marks=pytest.mark.slow), "adaptive_log_snr"])
def test_an_adaptive_step_compiles_as_one_graph(name: str) -> None:
    """Draw, weigh, observe: the same loss, gradient and state as without the compiler, in train mode."""

    class Step(torch.nn.Module):
        def __init__(self, schedule: dl.Schedule) -> None:
            super().__init__()
            density = DENSITIES[name]()
            predictor = dl.VPredictor(schedule)
            self.steps = dl.RandomDiffusionSteps(schedule, density)
            self.target = dl.ComputeTarget(predictor)
            self.network = torch.nn.Linear(4, 4, bias=False)
            torch.nn.init.eye_(self.network.weight)
            mean = dl.ImportanceMean(schedule, density, dl.NormalLogSNR(0.0, 2.0))
            self.loss = dl.SimpleLoss(predictor, dl.MinSNR(), mean=mean)

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            data = self.target(self.steps(batch))
            return self.loss(dl.DiffusionOutput(self.network(data["xt"])), data)

    results = []
    for compile_it in (False, True):
        step = Step(SCHEDULES["continuous_cosine"]()).train()
        before = {key: value.clone() for key, value in step.state_dict().items()}
        call = torch.compile(step, fullgraph=True, backend="aot_eager") if compile_it else step
        torch.manual_seed(0)
        for i in range(2):
            loss = call({"x": torch.full((8, 4), 0.1 * i)})
            loss.backward()
        results.append([loss, step.network.weight.grad, *step.steps.density.buffers()])
        changed = [key for key, value in step.state_dict().items() if not torch.equal(before[key], value)]
        assert changed
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_validation_does_not_teach_the_density() -> None:
    schedule = SCHEDULES["short"]()
    importance = dl.ImportanceMean(schedule, learned(dl.LossSecondMoment(50))).eval()
    before = importance.drawn.losses.clone()
    importance(torch.arange(50), torch.rand(50))
    assert torch.equal(importance.drawn.losses, before)
