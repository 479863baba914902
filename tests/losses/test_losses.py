"""Losses against formulas written independently, and the laws that tie them together."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import diffusion_labs as dl
from diffusion_labs.losses import discretized_gaussian_nll, gaussian_kl, gaussian_nll
from tests import catalogue
from tests.catalogue import SCHEDULES, TinyNetwork


def example(size: int = 6) -> tuple[dl.Schedule, dict[str, Tensor]]:
    schedule = SCHEDULES["cosine"]()
    x0, noise = torch.rand(2, size, 1, 4, 4, dtype=torch.float64) * 2 - 1
    t = torch.tensor([1, 50, 300, 500, 800, 950][:size])
    return schedule, {"x": x0, "noise": noise, "t": t, "xt": schedule.q_sample(x0, noise, t)}


@pytest.mark.parametrize("weighting", [dl.Uniform(), dl.SNR(), dl.MinSNR(), dl.P2(), dl.EDM(), dl.Sigmoid()], ids=repr)
def test_a_weighting_means_the_same_in_every_parameterisation(weighting) -> None:
    """The same estimate of x0, expressed by three predictors, has the same loss: w(log_snr) |x0_hat - x0|^2."""
    schedule, batch = example()
    level = schedule.at(batch["t"], batch["x"])
    x0_hat = batch["x"] + 0.1 * torch.randn_like(batch["x"])
    eps_hat = (batch["xt"] - level.alpha * x0_hat) / level.sigma
    expected = (weighting(level.log_snr) * (x0_hat - batch["x"]) ** 2).mean()
    for predictor in (dl.NoisePredictor(schedule), dl.TargetPredictor(schedule), dl.VPredictor(schedule)):
        a, b = predictor.coefficients(level.alpha, level.sigma)
        target = predictor.target(batch["x"], batch["noise"], batch["t"])
        loss = dl.SimpleLoss(predictor, weighting)
        value = loss(dl.DiffusionOutput(a * x0_hat + b * eps_hat), {**batch, "target": target})
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("weighting", "formula"),
    [
        (dl.SNR(), lambda snr: snr),
        (dl.MinSNR(5.0), lambda snr: min(snr, 5.0)),
        (dl.P2(k=1.0, gamma=0.5), lambda snr: snr / (1 + snr) ** 0.5),
        (dl.EDM(0.5), lambda snr: (1 / snr + 0.25) / (0.25 / snr)),
        (dl.Sigmoid(2.0), lambda snr: snr / (1 + snr / math.exp(2.0))),
        (dl.Uniform(), lambda snr: 1.0),
    ],
    ids=["snr", "min_snr", "p2", "edm", "sigmoid", "uniform"],
)
def test_weightings_are_the_papers(weighting, formula) -> None:
    """EDM: (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 with sigma^2 = 1 / SNR."""
    for log_snr in (-8.0, -1.0, 0.0, 1.2, 6.0):
        value = weighting(torch.tensor(log_snr, dtype=torch.float64)).item()
        assert value == pytest.approx(formula(math.exp(log_snr)), rel=1e-9)


def test_simple_loss_of_noise_prediction_is_its_snr_weighting() -> None:
    schedule, batch = example()
    predictor = dl.NoisePredictor(schedule)
    batch["target"] = batch["noise"]
    output = dl.DiffusionOutput(torch.randn_like(batch["x"]))
    torch.testing.assert_close(dl.SimpleLoss(predictor, dl.SNR())(output, batch), dl.SimpleLoss()(output, batch))


def test_gaussian_kl_is_torch_s() -> None:
    m1, m2 = torch.randn(2, 20, dtype=torch.float64)
    l1, l2 = torch.randn(2, 20, dtype=torch.float64)
    expected = kl_divergence(Normal(m1, (l1 / 2).exp()), Normal(m2, (l2 / 2).exp()))
    torch.testing.assert_close(gaussian_kl(m1, l1, m2, l2), expected)


def test_gaussian_nll_is_torch_s() -> None:
    x, mean, log_variance = torch.randn(3, 20, dtype=torch.float64)
    torch.testing.assert_close(gaussian_nll(x, mean, log_variance), -Normal(mean, (log_variance / 2).exp()).log_prob(x))


def test_discretized_likelihood_is_a_distribution_over_the_256_values() -> None:
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean in (-1.3, -0.2, 0.99):
        for log_variance in (-8.0, -3.0, 0.0):
            nll = discretized_gaussian_nll(values, torch.tensor(mean), torch.tensor(log_variance, dtype=torch.float64))
            assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-6)


def test_discretized_likelihood_of_wide_bins_is_the_density_times_their_width() -> None:
    values = torch.arange(20, 230, dtype=torch.float64) / 127.5 - 1
    mean, log_variance = torch.tensor(0.1, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    expected = gaussian_nll(values, mean, log_variance) - math.log(2 / 255)
    torch.testing.assert_close(discretized_gaussian_nll(values, mean, log_variance), expected, rtol=1e-3, atol=1e-4)


def test_vlb_terms_are_those_of_the_paper() -> None:
    """KL between the two Gaussians of the step, from DDPM's own formulas with betas, in bits per dimension."""
    betas = dl.cosine_beta_schedule(1000)
    alpha_bar = (1 - betas).cumprod(0)
    schedule, batch = example()
    mean = torch.randn_like(batch["x"])
    log_variance = -torch.rand_like(mean) - 3
    x0, xt, t = batch["x"], batch["xt"], batch["t"]

    def at(values: Tensor) -> Tensor:
        return values[t].reshape(-1, 1, 1, 1)

    previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    true_mean = at(betas * previous.sqrt() / (1 - alpha_bar)) * x0
    true_mean = true_mean + at((1 - previous) * (1 - betas).sqrt() / (1 - alpha_bar)) * xt
    true_std = at(betas * (1 - previous) / (1 - alpha_bar)).sqrt()
    kl = kl_divergence(Normal(true_mean, true_std), Normal(mean, (log_variance / 2).exp()))
    expected = kl.flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(dl.VLBLoss(schedule).terms(mean, log_variance, x0, xt, t), expected, rtol=1e-7, atol=0)


def test_the_first_step_is_a_likelihood() -> None:
    schedule, batch = example(2)
    t = torch.tensor([0, 0])
    mean, log_variance = batch["x"] + 0.01, torch.full_like(batch["x"], -6.0)
    for likelihood in (discretized_gaussian_nll, gaussian_nll):
        terms = dl.VLBLoss(schedule, likelihood).terms(mean, log_variance, batch["x"], batch["xt"], t)
        expected = likelihood(batch["x"], mean, log_variance).flatten(1).mean(1) / math.log(2)
        torch.testing.assert_close(terms, expected)


def test_an_exact_model_has_no_divergence() -> None:
    schedule, batch = example()
    mean, log_variance = schedule.q_posterior(batch["x"], batch["xt"], batch["t"])
    terms = dl.VLBLoss(schedule).terms(mean, log_variance, batch["x"], batch["xt"], batch["t"])
    torch.testing.assert_close(terms, torch.zeros_like(terms), atol=1e-12, rtol=0)


def test_the_variance_term_cannot_move_the_prediction_but_trains_the_variance() -> None:
    schedule = SCHEDULES["cosine"]()
    predictor = dl.NoisePredictor(schedule)
    sampler = dl.DDPMSampler(TinyNetwork(learned_variance=True), schedule, predictor).train()
    batch = catalogue.batch()

    def gradient(loss: nn.Module) -> Tensor:
        sampler.zero_grad()
        loss(sampler(batch["xt"], batch["t"]), batch).backward()
        return sampler.model.conv.weight.grad.clone()

    simple = gradient(dl.SimpleLoss())
    hybrid = gradient(dl.DiffusionHybridLoss(dl.SimpleLoss(), dl.VLBLoss(schedule)))
    torch.testing.assert_close(hybrid[0], simple[0])  # the prediction's output channel
    assert simple[1].abs().max() == 0
    assert hybrid[1].abs().max() > 1e-6  # the variance's


def test_the_hybrid_weight_is_the_paper_s() -> None:
    """0.001 of the whole bound, a sum over T steps: the mean term has weight 1 for T = 1000, 0.05 for T = 50."""
    for name, weight in (("cosine", 1.0), ("short", 0.05)):
        vlb = dl.VLBLoss(SCHEDULES[name]())
        hybrid = dl.DiffusionHybridLoss(dl.SimpleLoss(), vlb)
        assert hybrid.weight * hybrid.steps == pytest.approx(weight)


@pytest.mark.parametrize("name", catalogue.LOSSES)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(KeyError, match=r"Loss needs '\w+'; the batch has \['class'\]"):
        catalogue.LOSSES[name]()(catalogue.output(), {"class": torch.zeros(4)})


def test_other_mistakes_are_named() -> None:
    output, batch = catalogue.output(), catalogue.batch()
    with pytest.raises(ValueError, match=r"\[4, 1, 8, 8\], but 'target' has \[4, 2, 8, 8\]"):
        dl.SimpleLoss()(output, {**batch, "target": torch.zeros(4, 2, 8, 8)})
    with pytest.raises(ValueError, match="no mean and log_variance"):
        dl.VLBLoss(SCHEDULES["cosine"]())(output._replace(mean=None), batch)
    with pytest.raises(ValueError, match="together"):
        dl.SimpleLoss(weighting=dl.SNR())
    for make in (lambda: dl.MinSNR(0.0), lambda: dl.P2(k=0.0), lambda: dl.EDM(0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            make()


def test_improved_ddpm_s_importance_sampling_estimates_the_same_bound() -> None:
    """L_vlb from steps drawn by the second moment of its terms: over all steps, weighted by their probability."""
    schedule = SCHEDULES["short"]()
    steps = torch.arange(50)
    x0, noise, mean = torch.rand(3, 50, 1, 4, 4, dtype=torch.float64) * 2 - 1
    batch = {"x": x0, "t": steps, "xt": schedule.q_sample(x0, noise, steps)}
    output = dl.DiffusionOutput(mean, None, mean, torch.full_like(mean, -4.0))
    density = dl.LossSecondMoment(50)
    importance = dl.ImportanceMean(schedule, density)
    expected = dl.VLBLoss(schedule)(output, batch)
    loss = dl.VLBLoss(schedule, mean=importance)
    for _ in range(10):
        torch.testing.assert_close(loss(output, batch), expected)  # uniform, and learning
    probability = density.log_prob(schedule, steps).exp()
    assert probability.max() > 2 * probability.min()
    by_probability = dl.VLBLoss(schedule, mean=lambda t, terms: (probability * importance.ratio(t) * terms).sum())
    torch.testing.assert_close(by_probability(output, batch), expected)


def test_a_mean_needs_the_times() -> None:
    schedule = SCHEDULES["short"]()
    loss = dl.SimpleLoss(mean=dl.ImportanceMean(schedule, dl.NormalLogSNR(), dl.UniformTime()))
    with pytest.raises(KeyError, match="SimpleLoss needs 't'"):
        loss(dl.DiffusionOutput(torch.zeros(2, 1)), {"target": torch.zeros(2, 1)})


def test_the_bound_of_a_continuous_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="RectifiedFlowSchedule is continuous: the bound is not a sum over its steps"):
        dl.VLBLoss(dl.RectifiedFlowSchedule())
