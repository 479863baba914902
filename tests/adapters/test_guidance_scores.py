"""What guidance samples from: scores in closed form, for mixtures of Gaussians with classes."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import PREDICTORS, SCHEDULES

MEANS = torch.tensor([[-1.0, 0.5], [0.3, -0.8], [1.2, 0.9], [0.1, 0.2]], dtype=torch.float64)
STD = torch.tensor([[0.4, 0.6], [0.5, 0.3], [0.7, 0.4], [0.2, 0.9]], dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 2, 0])
WEIGHTS = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
T = torch.tensor([50, 400, 700, 950])
LABELS = torch.tensor([0, 1, 2, 1])


def log_density(x: Tensor, alpha: Tensor, sigma: Tensor, classes: Tensor | None) -> Tensor:
    """log p(x_t), or log p(x_t | class) up to a constant, written out component by component."""
    total = []
    for mean, std, weight, label in zip(MEANS, STD, WEIGHTS, CLASSES, strict=True):
        variance = (alpha * std) ** 2 + sigma**2
        log = weight.log() - 0.5 * ((x - alpha * mean) ** 2 / variance + variance.log()).sum(1)
        total.append(log if classes is None else log.masked_fill(classes != label, -torch.inf))
    return torch.stack(total).logsumexp(0)


def score(x: Tensor, alpha: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(log_density(x, alpha, sigma, classes).sum(), x)[0]


def ideal(predictor: dl.Predictor) -> dl.IdealDenoiser:
    return dl.IdealDenoiser(predictor, MEANS, STD, WEIGHTS, CLASSES)


def guided_score(model: torch.nn.Module, predictor: dl.Predictor, x: Tensor, **conditions: Tensor) -> Tensor:
    eps = predictor.predict_noise(model.eval()(x, T, conditions).prediction, x, T)
    return -eps / predictor.schedule.at(T, x).sigma


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("scale", [-0.5, 0.0, 1.0, 3.0])
def test_guided_score_is_that_of_the_sharpened_density(name: str, scale: float) -> None:
    """grad log p(x) + s (grad log p(x | c) - grad log p(x)), by autograd of the density."""
    predictor = PREDICTORS[name](SCHEDULES["cosine"]())
    x = torch.randn(4, 2, dtype=torch.float64)
    level = predictor.schedule.at(T, x)
    model = dl.CFGuidance(ideal(predictor), {"class": 0.1}, guidance_scale=scale)
    plain, conditional = (score(x, level.alpha, level.sigma, classes) for classes in (None, LABELS))
    expected = plain + scale * (conditional - plain)
    torch.testing.assert_close(guided_score(model, predictor, x, **{"class": LABELS}), expected, rtol=1e-8, atol=1e-8)


def test_a_negative_class_takes_the_place_of_the_density_of_all() -> None:
    predictor = dl.VPredictor(SCHEDULES["cosine"]())
    x, negative = torch.randn(4, 2, dtype=torch.float64), torch.tensor([1, 2, 0, 0])
    level = predictor.schedule.at(T, x)
    model = dl.CFGuidance(ideal(predictor), {"class": 0.1}, guidance_scale=3.0)
    away, towards = (score(x, level.alpha, level.sigma, classes) for classes in (negative, LABELS))
    actual = guided_score(model, predictor, x, **{"class": LABELS, "negative_class": negative})
    torch.testing.assert_close(actual, away + 3 * (towards - away), rtol=1e-8, atol=1e-8)


class Product(dl.ConditionalModule):
    """The exact noise for data N(0, I), multiplied by a likelihood for each condition that is given.

    A condition is the mean of a Gaussian likelihood in x_t, null where it is not a number; so every subset of them has
    a density of its own.
    """

    spread = {"left": 0.7, "right": 1.3, "third": 2.0}  # noqa: RUF012

    def __init__(self, predictor: dl.Predictor) -> None:
        super().__init__(self.spread)
        self.predictor = predictor

    def score(self, x: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        total = -x
        for name, mean in conditions.items():
            total = total + torch.where(mean.isnan(), 0.0, (mean - x) / self.spread[name] ** 2)
        return total

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs=None) -> dl.DiffusionOutput:
        conditions = {name: self.check_conditions(conditional_inputs, x)[name] for name in self.spread}
        level = self.predictor.schedule.at(timestep, x)
        eps = -level.sigma * self.score(x, conditions)
        a, b = self.predictor.coefficients(level.alpha, level.sigma)
        return dl.DiffusionOutput(a * (x - level.sigma * eps) / level.alpha + b * eps)


@pytest.mark.parametrize("name", PREDICTORS)
def test_weighted_conditions_multiply_the_densities(name: str) -> None:
    """p(x) prod_i p(c_i | x)^s_i: likelihoods are independent, so at weights 1 it is that of all conditions jointly."""
    predictor = PREDICTORS[name](SCHEDULES["cosine"]())
    network = Product(predictor)
    x, null = torch.randn(4, 2, dtype=torch.float64), torch.tensor(torch.nan, dtype=torch.float64)
    conditions = {key: torch.randn(4, 2, dtype=torch.float64) for key in network.spread}
    dropout = dict.fromkeys(network.spread, 0.1)
    model = dl.CFGuidance(network, dropout, null=dict.fromkeys(dropout, null))

    joint = guided_score(model, predictor, x, **conditions)
    torch.testing.assert_close(joint, network.score(x, conditions), rtol=1e-8, atol=1e-8)
    model.guidance_scale = dict.fromkeys(dropout, 1.0)
    torch.testing.assert_close(guided_score(model, predictor, x, **conditions), joint, rtol=1e-8, atol=1e-8)

    weights = {"left": 2.5, "right": -1.0, "third": 0.0}
    model.guidance_scale = weights
    expected = -x + sum(s * (conditions[key] - x) / network.spread[key] ** 2 for key, s in weights.items())
    torch.testing.assert_close(guided_score(model, predictor, x, **conditions), expected, rtol=1e-8, atol=1e-8)

    model.guidance_scale = {"left": 2.5, "right": -1.0}  # the third is in every pass
    expected = expected + (conditions["third"] - x) / network.spread["third"] ** 2
    torch.testing.assert_close(guided_score(model, predictor, x, **conditions), expected, rtol=1e-8, atol=1e-8)


def test_autoguidance_is_the_difference_of_two_densities() -> None:
    """The weaker network knows wider data; a network guided by itself is itself."""
    predictor = dl.VPredictor(SCHEDULES["cosine"]())
    x = torch.randn(4, 2, dtype=torch.float64)
    weaker = dl.IdealDenoiser(predictor, MEANS, 2 * STD, WEIGHTS, CLASSES)
    model = dl.AutoGuidance(ideal(predictor), weaker, guidance_scale=2.5)
    strong, weak = (guided_score(m, predictor, x, **{"class": LABELS}) for m in (ideal(predictor), weaker))
    actual = guided_score(model, predictor, x, **{"class": LABELS})
    torch.testing.assert_close(actual, weak + 2.5 * (strong - weak), rtol=1e-10, atol=1e-10)

    itself = dl.AutoGuidance(ideal(predictor), ideal(predictor), guidance_scale=7.0)
    torch.testing.assert_close(guided_score(itself, predictor, x, **{"class": LABELS}), strong, rtol=0, atol=1e-12)
