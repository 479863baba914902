"""Errors at noise levels: of the best possible model in closed form, and of whole data sets from their parts."""

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.metrics import loss_per_level
from tests.catalogue import PREDICTORS, SCHEDULES

MEAN, STD = torch.tensor([[0.5, -1.0]]).double(), torch.tensor([[0.3, 0.8]]).double()


def sampler(schedule: str = "cosine", predictor: str = "v") -> dl.Sampler:
    made = SCHEDULES[schedule]()
    predicts = PREDICTORS[predictor](made)
    return dl.DDIMSampler(dl.IdealDenoiser(predicts, MEAN, STD), made, predicts, eval_steps=2, progress_bar=False)


@pytest.mark.parametrize(
    ("schedule", "predictor"), [("cosine", "noise"), ("rectified_flow", "flow"), ("variance_exploding", "target")]
)
def test_no_model_errs_less_than_the_posterior_s_variance(schedule: str, predictor: str) -> None:
    """``v / (1 + snr v)`` of data of variance v, within five standard errors; of the noise, the SNR times as much."""
    n = 4000
    x0 = MEAN + STD * torch.randn(n, 2, dtype=torch.float64)
    found = loss_per_level(sampler(schedule, predictor), x0, levels=5, low=-6.0, high=6.0, batch_size=999)
    snr = found.log_snr.exp()[:, None]
    variance = STD.square() / (1 + snr * STD.square())
    standard_error = found.x0.std(1) / n**0.5
    assert ((found.x0.mean(1) - variance.mean(1)).abs() < 5 * standard_error).all()
    torch.testing.assert_close(found.noise, snr * found.x0)
    torch.testing.assert_close(found.log_snr, torch.linspace(6, -6, 5).double(), rtol=0, atol=0.05)


def test_it_does_not_depend_on_batches_or_parts_and_leaves_the_model_as_it_was() -> None:
    x0 = torch.randn(7, 2, dtype=torch.float64)
    model = sampler().train()
    whole = loss_per_level(model, x0)
    assert model.training
    torch.testing.assert_close(loss_per_level(model, x0, batch_size=2), whole, rtol=0, atol=0)
    parts = [loss_per_level(model, x0[:3]), loss_per_level(model, x0[3:], first=3)]
    torch.testing.assert_close(torch.cat([part.x0 for part in parts], 1), whole.x0, rtol=0, atol=0)
    assert not torch.equal(loss_per_level(model, x0, seed=1).x0, whole.x0)


def test_conditions_belong_to_their_samples() -> None:
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    network = dl.IdealDenoiser(predictor, torch.tensor([[-2.0], [2.0]]), 0.1, classes=[0, 1])
    model = dl.DDIMSampler(network, schedule, predictor, progress_bar=False)
    x0, classes = torch.tensor([[-2.0], [2.0], [2.0]]), torch.tensor([0, 1, 1])
    right = loss_per_level(model, x0, {"class": classes}, low=-8, high=-7, levels=1, batch_size=2)
    wrong = loss_per_level(model, x0, {"class": 1 - classes}, low=-8, high=-7, levels=1)
    assert right.x0.max() < 0.1
    assert wrong.x0.min() > 10


@pytest.mark.parametrize("bad", [{"levels": 0}, {"low": 1.0, "high": 1.0}])
def test_no_levels_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="levels"):
        loss_per_level(sampler(), torch.zeros(1, 2).double(), **bad)


def test_modes_of_parts_come_back_also_after_an_error() -> None:
    model = sampler().train()
    frozen = model.model.frozen = torch.nn.Dropout().eval()
    loss_per_level(model, torch.randn(3, 2))
    assert (model.training, model.model.training, frozen.training) == (True, True, False)
    with pytest.raises(RuntimeError):
        loss_per_level(model, torch.randn(3, 5))
    assert (model.training, frozen.training) == (True, False)
