"""How passes are combined: the laws of each rule, and the same path whatever the network predicts."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.adapters.combinations import linear
from tests.catalogue import PREDICTORS, SCHEDULES
from tests.contracts.test_predictors import DEFINED

T = torch.tensor([100, 500, 999])


@pytest.fixture
def passes() -> tuple[Tensor, list[Tensor], list[float], Tensor, Tensor]:
    u, c, d, x = torch.randn(4, 3, 2, 4, 4, dtype=torch.float64)
    return u, [c, d], [3.0, -1.5], x, T


def projected(predictor: str = "v", schedule: str = "cosine", **options) -> dl.AdaptiveProjectedGuidance:
    return dl.AdaptiveProjectedGuidance(PREDICTORS[predictor](SCHEDULES[schedule]()), **options)


def test_rules_that_change_nothing_are_linear(passes) -> None:
    for combine in (dl.GuidanceRescale(0.0), projected(eta=1.0), projected(eta=1.0, norm_threshold=1e9)):
        torch.testing.assert_close(combine(*passes), linear(*passes), rtol=0, atol=1e-12)


def test_every_rule_gives_the_conditional_at_scale_one(passes) -> None:
    u, (c, _), _, x, t = passes
    for combine in (linear, dl.GuidanceRescale(0.7), dl.GuidanceRescale(1.0), projected(norm_threshold=0.1)):
        torch.testing.assert_close(combine(u, [c], [1.0], x, t), c, rtol=0, atol=1e-12)


def test_full_rescaling_has_the_spread_of_the_conditional_in_each_sample(passes) -> None:
    u, (c, _), _, x, t = passes
    guided = dl.GuidanceRescale(1.0)(u, [c], [5.0], x, t)
    torch.testing.assert_close(guided.flatten(1).std(1), c.flatten(1).std(1))
    plain = linear(u, [c], [5.0], x, t)
    ratio = c.flatten(1).std(1) / plain.flatten(1).std(1)
    torch.testing.assert_close(guided, ratio.reshape(-1, 1, 1, 1) * plain)


def test_rescaling_a_constant_leaves_it_finite() -> None:
    ones = torch.ones(2, 1, 2, 2)
    guided = dl.GuidanceRescale(1.0)(0 * ones, [ones], [3.0], ones, torch.zeros(2))
    assert torch.equal(guided, 3 * ones)


@pytest.mark.parametrize(("schedule", "predictor"), [pair for pair in DEFINED if pair[0] in ("cosine", "edm")])
def test_projection_is_orthogonal_to_the_clean_data_and_bounded(schedule: str, predictor: str) -> None:
    """In x0: c + (s - 1) of the part of the difference that is orthogonal to x0_c, no longer than r."""
    combine = projected(predictor, schedule)
    process, predictor_ = combine.predictor.schedule, combine.predictor
    t = process.snap(torch.linspace(process.first, process.terminal, 5, dtype=torch.float64)[1:])
    x0_c, x0_u, x = torch.randn(3, 4, 2, 3, 3, dtype=torch.float64)
    level = process.at(t, x)

    def predict(x0: Tensor) -> Tensor:
        return predictor_.target(x0, (x - level.alpha * x0) / level.sigma, t)

    def moved(**options) -> Tensor:
        rule = dl.AdaptiveProjectedGuidance(predictor_, **options)
        guided = rule(predict(x0_u), [predict(x0_c)], [4.0], x, t)
        return (predictor_.predict_x0(guided, x, t) - x0_c).flatten(1) / 3

    unit = x0_c.flatten(1) / x0_c.flatten(1).norm(dim=1, keepdim=True)
    difference = (x0_c - x0_u).flatten(1)
    parallel = (difference * unit).sum(1, keepdim=True) * unit
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(moved(), difference - parallel, **tolerance)
    torch.testing.assert_close(moved(eta=0.3), difference - 0.7 * parallel, **tolerance)
    bounded = moved(eta=1.0, norm_threshold=0.5)
    torch.testing.assert_close(bounded, 0.5 * difference / difference.norm(dim=1, keepdim=True), **tolerance)


def test_projection_at_zero_terminal_snr_is_finite_and_ignores_the_clamp() -> None:
    schedule = SCHEDULES["zero_terminal_snr"]()
    u, c, x = torch.randn(3, 2, 1, 4, 4)
    t = torch.tensor([0, 999])
    free, clamped = (
        dl.AdaptiveProjectedGuidance(dl.VPredictor(schedule, clamp), norm_threshold=1.0)(u, [c], [9.0], x, t)
        for clamp in (None, dl.StaticClamp(-0.01, 0.01))
    )
    assert free.isfinite().all()
    assert torch.equal(free, clamped)
    unit = c[1] / c[1].norm()  # at alpha = 0, v is -x0
    difference = (c - u)[1]
    expected = c[1] + 8 * (difference - (difference * unit).sum() * unit) / difference.norm()
    torch.testing.assert_close(free[1], expected, rtol=1e-5, atol=1e-5)


class Classes(dl.ConditionalModule):
    """x0 depends on x and the class without noise levels, in any parameterisation: a network that is no mixture."""

    null_conditions = {"class": 3}  # noqa: RUF012

    def __init__(self, predictor: dl.Predictor) -> None:
        super().__init__(["class"])
        self.predictor = predictor

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs=None) -> dl.DiffusionOutput:
        shift = torch.tensor([[0.3, -0.7], [1.1, 0.2], [-0.4, 0.9], [0.0, 0.5]], dtype=x.dtype)
        x0 = torch.tanh(x + shift[conditional_inputs["class"]])
        level = self.predictor.schedule.at(timestep, x)
        return dl.DiffusionOutput(self.predictor.target(x0, (x - level.alpha * x0) / level.sigma, timestep))


RULES = {
    "linear": lambda predictor: linear,
    "projected": lambda predictor: dl.AdaptiveProjectedGuidance(predictor, eta=0.2, norm_threshold=0.3),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("adapter", [dl.CFGuidance, dl.CFGuidancePlusPlus])
def test_the_guided_path_is_the_same_whatever_is_predicted(rule: str, adapter: type[dl.CFGuidance]) -> None:
    """``GuidanceRescale`` is not here: it acts on the prediction itself."""
    schedule = SCHEDULES["cosine"]()
    x = schedule.sample_prior((3, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    paths = []
    for make in PREDICTORS.values():
        predictor = make(schedule)
        model: nn.Module = adapter(
            Classes(predictor), {"class": 0.1}, guidance_scale=2.5, combine=RULES[rule](predictor)
        )
        sampler = dl.DPMSolverPP2MSampler(model, schedule, predictor, eval_steps=8, progress_bar=False).eval()
        paths.append(torch.stack(list(sampler.generator(x, None, {"class": torch.tensor([0, 1, 2])}))))
    for path in paths[1:]:
        torch.testing.assert_close(path, paths[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dl.GuidanceRescale(1.2), r"phi \(1.2\) must be in \[0, 1\]"),
        (lambda: projected(norm_threshold=0.0), r"norm_threshold \(0.0\) must be positive"),
        (lambda: dl.GuidanceInterval(SCHEDULES["cosine"](), low=3.0, high=2.0), "need 0 <= low < high"),
    ],
)
def test_impossible_settings_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
