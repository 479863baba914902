"""Classifier guidance against Bayes' rule and the paper's two algorithms."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.adapters import guidance as guidance_module
from tests.catalogue import PREDICTORS, SCHEDULES, TinyClassifier, TinyNetwork

MEANS = torch.tensor([[1.0, 0.2], [-0.5, 0.8], [0.1, -1.0], [0.4, 0.6]]).double().reshape(4, 1, 1, 2)
STD, CLASSES = 0.4, [0, 1, 2, 2]


class ExactClassifier(nn.Module):
    """``log p(class | x_t)`` of the mixture, from the densities of its noised components."""

    def __init__(self, schedule: dl.Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, xt: Tensor, timestep: Tensor) -> Tensor:
        alpha, sigma = (value(timestep)[:, None] for value in (self.schedule.alpha, self.schedule.sigma))
        distance = (xt.flatten(1)[:, None] - alpha[..., None] * MEANS.flatten(1)).square().sum(-1)
        density = torch.exp(-0.5 * distance / (alpha**2 * STD**2 + sigma**2))
        share = torch.stack([density[:, 0], density[:, 1], density[:, 2] + density[:, 3]], 1)
        return share.log() + 7  # logits are given up to a constant


@pytest.mark.parametrize("schedule_name", ["cosine", "variance_exploding"])
@pytest.mark.parametrize("predictor_name", PREDICTORS)
def test_bayes_rule_turns_the_unconditional_model_into_the_conditional_one(
    schedule_name: str, predictor_name: str
) -> None:
    """The exact classifier on the exact model of all classes is the exact model of one, at each sample's own time."""
    schedule = SCHEDULES[schedule_name]()
    predictor = PREDICTORS[predictor_name](schedule)
    conditional = dl.IdealDenoiser(predictor, MEANS, STD, classes=CLASSES)
    guided = dl.ClassifierGuidance(dl.IdealDenoiser(predictor, MEANS, STD), ExactClassifier(schedule), predictor).eval()
    times = torch.lerp(torch.tensor(schedule.first), torch.tensor(schedule.terminal), torch.linspace(0, 0.7, 12))
    x, classes = torch.randn(12, 1, 1, 2).double(), torch.arange(12) % 3
    with torch.no_grad():
        left, right = (
            predictor.predict_x0(model(x, times.double(), {"class": classes}).prediction, x, times.double())
            for model in (guided, conditional)
        )
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


def guidance(scale: float = 2.0, model: nn.Module | None = None) -> dl.ClassifierGuidance:
    predictor = dl.NoisePredictor(SCHEDULES["linear"]())
    return dl.ClassifierGuidance(model or TinyNetwork(), TinyClassifier(), predictor, guidance_scale=scale).eval()


def gradient(model: dl.ClassifierGuidance, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    log_p = model.classifier(x, t).log_softmax(1)[torch.arange(len(x)), classes]
    return torch.autograd.grad(log_p.sum(), x)[0]


X, T, CLASS = torch.randn(3, 1, 8, 8), torch.tensor([3, 400, 990]), torch.tensor([0, 1, 2])


def test_noise_prediction_is_shifted_as_in_algorithm_2() -> None:
    model = guidance()
    sigma = model.predictor.schedule.sigma(T).float().reshape(3, 1, 1, 1)
    expected = model.model(X, T, {"class": CLASS}).prediction - 2 * sigma * gradient(model, X, T, CLASS)
    torch.testing.assert_close(model(X, T, {"class": CLASS}).prediction, expected)


def test_the_mean_of_ddpm_is_shifted_as_in_algorithm_1() -> None:
    """By ``scale * Sigma * gradient``, Sigma being the variance of q(x_t | x_s) over alpha_ts."""
    model = guidance()
    schedule = model.predictor.schedule

    def mean(network: nn.Module, t: Tensor) -> Tensor:
        x0 = model.predictor.predict_x0(network(X, t.expand(3), {"class": CLASS}).prediction, X, t)
        return schedule.q_posterior(x0, X, t)[0]

    for t in (torch.tensor(20), torch.tensor(600)):
        alpha, sigma = schedule.transition(t - 1, t)
        expected = (2 * sigma**2 / alpha).float() * gradient(model, X, t.expand(3), CLASS)
        torch.testing.assert_close(mean(model, t) - mean(model.model, t), expected, rtol=1e-3, atol=1e-5)


def test_samples_without_a_class_of_the_classifier_are_not_guided() -> None:
    model = guidance()
    plain, guided = (m(X, T, {"class": torch.tensor([0, 3, 2])}).prediction for m in (model.model, model))
    assert torch.equal(plain[1], guided[1])
    assert not torch.equal(plain[0], guided[0])
    assert torch.equal(model(X, T).prediction, model.model(X, T).prediction)


def test_training_leaves_the_classifier_alone() -> None:
    model = guidance().train()
    output = model(X, T, {"class": CLASS})
    assert torch.equal(output.prediction, model.model(X, T, {"class": CLASS}).prediction)
    assert not model.classifier.training
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"model"}


NOT_BEFORE_2_13 = pytest.mark.skipif(
    guidance_module.WRONG_IN_INFERENCE_MODE, reason="PyTorch before 2.13 is wrong there"
)


@pytest.mark.parametrize(
    "mode", [torch.no_grad, pytest.param(torch.inference_mode, marks=NOT_BEFORE_2_13), torch.enable_grad]
)
def test_guides_in_every_gradient_mode_and_leaves_no_gradients(mode) -> None:
    model = guidance()
    expected = model(X, T, {"class": CLASS}).prediction
    with mode():
        actual = model(X.clone(), T.clone(), {"class": CLASS.clone()}).prediction
    torch.testing.assert_close(actual, expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pure_noise_is_not_guided() -> None:
    schedule = SCHEDULES["zero_terminal_snr"]()
    predictor = dl.VPredictor(schedule)
    model = dl.ClassifierGuidance(TinyNetwork(), TinyClassifier(), predictor).eval()
    t = torch.full((3,), 999)
    assert torch.equal(model(X, t, {"class": CLASS}).prediction, model.model(X, t, {"class": CLASS}).prediction)


def test_wrong_derivatives_of_older_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance_module, "WRONG_IN_INFERENCE_MODE", True)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"sample in torch.no_grad\(\)"):
        guidance()(X, T, {"class": CLASS})
