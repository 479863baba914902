"""Posterior sampling of linear inverse problems against posteriors in closed form."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.adapters import guidance as guidance_module
from diffusion_labs.adapters.linear_posterior import conjugate_gradients
from tests.adapters.gaussian import CorrelatedGaussian, conditional, moments
from tests.catalogue import PREDICTORS, SCHEDULES, TinyNetwork, halve, network
from tests.contracts.test_predictors import DEFINED

DISTANCE = (torch.arange(6)[:, None] - torch.arange(6)).abs().double()
MEAN, COVARIANCE = torch.tensor([0.2, -0.1, 0.3, 0.0, 0.5, -0.5]).double(), 0.5 * 0.8**DISTANCE
A = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, -1, 0, 0], [0, 0, 0, 0, 1, 2]]).double()
MEASUREMENT = torch.tensor([1.0, 0.5, -1.0]).double()


def measure(x: Tensor) -> Tensor:
    return x.flatten(1) @ A.T.to(x.dtype)


def posterior(predictor: dl.Predictor, noise_std: float, **options: int) -> dl.LinearPosterior:
    model = CorrelatedGaussian(predictor, MEAN, COVARIANCE)
    return dl.LinearPosterior(model, predictor, measure, noise_std, **options).eval()


@pytest.mark.parametrize("noise_std", [0.3, 0.0])
@pytest.mark.parametrize(
    ("schedule_name", "predictor_name"),
    [pair for pair in DEFINED if pair[0] in ("cosine", "variance_exploding", "rectified_flow")],
)
def test_the_estimate_of_gaussian_data_is_its_mean_given_xt_and_the_measurement(
    schedule_name: str, predictor_name: str, noise_std: float
) -> None:
    """x_t and the measurement are one linear measurement of x0: Gaussian conditioning, for each sample at its time."""
    schedule = SCHEDULES[schedule_name]()
    predictor = PREDICTORS[predictor_name](schedule)
    t = torch.lerp(torch.tensor(schedule.first), torch.tensor(schedule.terminal), torch.linspace(0.02, 0.9, 8)).double()
    xt = torch.randn(8, 1, 6, 1).double()
    with torch.no_grad():
        output = posterior(predictor, noise_std)(xt, t, {"measurement": MEASUREMENT.expand(8, -1)})
    actual = predictor.predict_x0(output.prediction, xt, t)
    for i in range(8):
        alpha, sigma = schedule.alpha(t[i]), schedule.sigma(t[i])
        given_xt = conditional(MEAN, COVARIANCE, alpha * torch.eye(6).double(), xt[i].flatten(), sigma)
        expected, _ = conditional(*given_xt, A, MEASUREMENT, noise_std)
        torch.testing.assert_close(actual[i].flatten(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule_name", ["variance_exploding", "shifted_cosine"])
def test_gaussian_data_is_drawn_from_its_posterior(schedule_name: str) -> None:
    """Mean and covariance of 1,000 samples, within the statistical error and that of the solver."""
    schedule = SCHEDULES[schedule_name]()
    predictor = dl.VPredictor(schedule)
    n = 1000
    sampler = dl.DPMSolverPP2MSampler(
        posterior(predictor, 0.3), schedule, predictor, eval_steps=50, grid=dl.uniform_log_snr, progress_bar=False
    ).eval()
    x = sampler(
        schedule.sample_prior((n, 1, 6, 1), dtype=torch.float64),
        conditional_inputs={"measurement": MEASUREMENT.expand(n, -1)},
    )
    mean, covariance = moments(x)
    exact, spread = conditional(MEAN, COVARIANCE, A, MEASUREMENT, 0.3)
    assert ((mean - exact).abs() < (4 / n**0.5 + 0.05) * spread.diagonal().sqrt()).all()
    scale = spread.diagonal().sqrt().outer(spread.diagonal().sqrt())
    assert ((covariance - spread).abs() < (6 / n**0.5 + 0.05) * scale).all()


def test_a_measurement_without_noise_is_reproduced_by_a_stochastic_sampler() -> None:
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    sampler = dl.DDPMSampler(posterior(predictor, 0.0), schedule, predictor, eval_steps=20, progress_bar=False).eval()
    x = sampler(torch.randn(4, 1, 6, 1).double(), conditional_inputs={"measurement": MEASUREMENT.expand(4, -1)})
    torch.testing.assert_close(measure(x), MEASUREMENT.expand(4, -1), rtol=0, atol=1e-9)
    assert x.std(0).mean() > 0.1


def test_a_mixture_is_drawn_from_nearly_its_posterior() -> None:
    """Two modes in 2-D, of which a noisy measurement of one coordinate makes one more likely.

    p(x0 | x_t) is no Gaussian here, and the method an approximation: the weight of the modes is right to about 0.05,
    mean and spread within each to a tenth of the spread, with a stochastic sampler, whose noise forgets errors.
    (Deterministic samplers keep them: up to a third of the spread. The more the measurement says about the mode, the
    more of the weight is missed.)
    """
    schedule = SCHEDULES["continuous_cosine"]()
    predictor = dl.VPredictor(schedule)
    centres, std, noise_std, value = torch.tensor([[-1.0, 0.5], [1.0, -0.5]]).double(), 0.3, 1.0, 0.4
    model = dl.LinearPosterior(
        dl.IdealDenoiser(predictor, centres.reshape(2, 1, 2, 1), std), predictor, lambda x: x[:, :, :1], noise_std
    )
    n = 2000
    sampler = dl.DDPMSampler(
        model, schedule, predictor, eval_steps=200, grid=dl.uniform_log_snr, progress_bar=False
    ).eval()
    x = sampler(
        schedule.sample_prior((n, 1, 2, 1), dtype=torch.float64),
        conditional_inputs={"measurement": torch.full((n, 1, 1, 1), value).double()},
    ).flatten(1)

    weight = torch.softmax(-0.5 * (value - centres[:, 0]) ** 2 / (std**2 + noise_std**2), 0)
    assert weight[1] > 0.65
    for mode, chosen in enumerate((x[:, 0] < 0, x[:, 0] >= 0)):
        exact, spread = conditional(
            centres[mode],
            std**2 * torch.eye(2).double(),
            torch.eye(2).double()[:1],
            torch.tensor([value]).double(),
            noise_std,
        )
        assert abs(chosen.double().mean() - weight[mode]) < 0.05 + 4 * 0.5 / n**0.5
        mean, covariance = moments(x[chosen])
        assert ((mean - exact).abs() < 0.1 * std + 4 * std / chosen.sum() ** 0.5).all()
        assert ((covariance.diagonal() / spread.diagonal()).sqrt() - 1).abs().max() < 0.1 + 4 / chosen.sum() ** 0.5


def test_samples_do_not_depend_on_their_batch_and_the_time_is_each_one_s_own() -> None:
    predictor = dl.VPredictor(SCHEDULES["cosine"]())
    model = dl.LinearPosterior(TinyNetwork(), predictor, halve, 1.0).double().eval()
    x, t, y = torch.randn(4, 1, 8, 8).double(), torch.tensor([1, 300, 700, 999]), torch.randn(4, 1, 4, 4).double()
    together = model(x, t, {"measurement": y}).prediction
    for i in range(4):
        alone = model(x[i : i + 1], t[i : i + 1], {"measurement": y[i : i + 1]}).prediction
        torch.testing.assert_close(alone[0], together[i])


@pytest.mark.parametrize("outside", [True, False])
def test_with_classifier_free_guidance_it_is_the_posterior_of_the_class(outside: bool) -> None:
    """At scale 1, in either order: one Gaussian for each class, so the posterior given class and measurement."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    means, std = torch.tensor([[-1.0, 1.0], [2.0, 0.5]]).double(), torch.tensor([0.5, 0.8]).double()
    network = dl.IdealDenoiser(predictor, means.reshape(2, 1, 2, 1), std.reshape(1, 2, 1), classes=[0, 1])

    def guide(model: torch.nn.Module) -> dl.CFGuidance:
        return dl.CFGuidance(model, {"class": 0.1})

    def measured(model: torch.nn.Module) -> dl.LinearPosterior:
        return dl.LinearPosterior(model, predictor, lambda x: x.sum((1, 2, 3)), 0.2)

    model = (guide(measured(network)) if outside else measured(guide(network))).eval()
    xt, t = torch.randn(4, 1, 2, 1).double(), torch.tensor([100, 300, 500, 700])
    classes, y = torch.tensor([0, 1, 0, 1]), torch.tensor([0.5, 1.0, -0.5, 3.0]).double()
    output = model(xt, t, {"class": classes, "measurement": y})
    actual = predictor.predict_x0(output.prediction, xt, t)
    for i in range(4):
        alpha, sigma = schedule.alpha(t[i]), schedule.sigma(t[i])
        prior = means[classes[i]], std.square().diag()
        given_xt = conditional(*prior, alpha * torch.eye(2).double(), xt[i].flatten(), sigma)
        expected, _ = conditional(*given_xt, torch.ones(1, 2).double(), y[i : i + 1], 0.2)
        torch.testing.assert_close(actual[i].flatten(), expected)


def test_pure_noise_and_training_are_left_alone() -> None:
    predictor = dl.VPredictor(SCHEDULES["zero_terminal_snr"]())
    model = dl.LinearPosterior(TinyNetwork(), predictor, halve, 0.0)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([999, 999])
    for mode in (True, False):
        output = model.train(mode)(x, t, {"measurement": halve(x) + 1})
        assert torch.equal(output.prediction, model.model(x, t).prediction)
    assert torch.equal(model(x, t - 500).prediction, model.model(x, t - 500).prediction)


NOT_BEFORE_2_13 = pytest.mark.skipif(
    guidance_module.WRONG_IN_INFERENCE_MODE, reason="PyTorch before 2.13 is wrong there"
)


@pytest.mark.parametrize(
    "mode", [torch.no_grad, pytest.param(torch.inference_mode, marks=NOT_BEFORE_2_13), torch.enable_grad]
)
def test_guides_in_every_gradient_mode_and_leaves_no_gradients(mode) -> None:
    model = dl.LinearPosterior(TinyNetwork(), dl.VPredictor(SCHEDULES["cosine"]()), halve, 1.0).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([100, 500])
    expected = model(x, t, {"measurement": halve(x) + 1}).prediction
    with mode():
        actual = model(x.clone(), t.clone(), {"measurement": halve(x) + 1}).prediction
    torch.testing.assert_close(actual, expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_trained_with_checkpointing_can_be_guided() -> None:
    predictor = dl.VPredictor(SCHEDULES["cosine"]())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([100, 500])
    plain, checkpointed = (
        dl.LinearPosterior(network(checkpointing=checkpointing), predictor, halve, 1.0).eval()
        for checkpointing in (False, True)
    )
    given = {"measurement": halve(x) + 1}
    torch.testing.assert_close(checkpointed(x, t, given).prediction, plain(x, t, given).prediction)


def test_conjugate_gradients_solve_in_as_many_iterations_as_there_are_eigenvalues() -> None:
    """Three distinct eigenvalues in twelve dimensions, another matrix for each sample."""
    rotation = torch.linalg.qr(torch.randn(5, 12, 12).double()).Q
    matrix = rotation * torch.tensor([0.1, 2.0, 30.0]).double().repeat(4) @ rotation.mT
    right = torch.randn(5, 12).double()
    solution = conjugate_gradients(lambda u: (matrix @ u[..., None])[..., 0], right, 3)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, right))


def test_directions_without_a_positive_variance_are_not_followed() -> None:
    right = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    sign = torch.tensor([[0.0], [1.0], [-1.0]])
    assert torch.equal(conjugate_gradients(lambda u: sign * u, right, 3), torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: dl.LinearPosterior(TinyNetwork(), p, halve, -1.0), r"noise_std \(-1.0\)"),
        (lambda p: dl.LinearPosterior(TinyNetwork(), p, halve, 1.0, iterations=0), r"iterations \(0\)"),
        (
            lambda p: dl.LinearPosterior(TinyNetwork(), p, halve, 1.0).eval()(
                torch.zeros(2, 1, 8, 8), torch.zeros(2), {"measurement": torch.zeros(2, 1, 8, 8)}
            ),
            r"\['measurement'\] has shape \[2, 1, 8, 8\], but the operator makes \[2, 1, 4, 4\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(dl.VPredictor(SCHEDULES["cosine"]()))


def test_wrong_derivatives_of_older_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance_module, "WRONG_IN_INFERENCE_MODE", True)
    model = dl.LinearPosterior(TinyNetwork(), dl.VPredictor(SCHEDULES["cosine"]()), halve, 1.0).eval()
    x = torch.randn(1, 1, 8, 8)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"sample in torch.no_grad\(\)"):
        model(x, torch.tensor([100]), {"measurement": halve(x) + 1})
