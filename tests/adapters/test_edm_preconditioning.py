"""EDM's preconditioning against the paper's Table 1, written out, and its unit variances."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import SCHEDULES, network


class Network(nn.Module):
    """F of the paper: any function of the input and c_noise; keeps what it got."""

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: object = None) -> dl.DiffusionOutput:
        self.got = x, timestep
        return dl.DiffusionOutput(torch.sin(3 * x) + timestep.reshape(-1, 1, 1, 1).cos() * x)


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_with_its_predictor_it_is_the_denoiser_of_the_paper(schedule_name: str) -> None:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), of x_t / alpha and sigma / alpha (Eq. 7, Table 1)."""
    schedule, sigma_data = SCHEDULES[schedule_name](), 0.7
    t = schedule.snap(
        torch.lerp(torch.tensor(schedule.first), torch.tensor(schedule.terminal), torch.linspace(0, 0.9, 8))
    )
    xt = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    alpha, sigma = (value(t).reshape(-1, 1, 1, 1) for value in (schedule.alpha, schedule.sigma))
    x, noise = xt / alpha, sigma / alpha

    c_skip = sigma_data**2 / (noise**2 + sigma_data**2)
    c_out = noise * sigma_data / (sigma_data**2 + noise**2).sqrt()
    c_in = 1 / (sigma_data**2 + noise**2).sqrt()
    c_noise = noise.log() / 4
    expected = c_skip * x + c_out * Network()(c_in * x, c_noise.flatten()).prediction

    predictor = dl.EDMPredictor(schedule, sigma_data=sigma_data)
    model = dl.EDMPreconditioning(Network(), schedule, sigma_data=sigma_data)
    torch.testing.assert_close(predictor.predict_x0(model(xt, t).prediction, xt, t), expected)


@pytest.mark.parametrize("schedule_name", ["cosine", "edm", "rectified_flow", "zero_terminal_snr"])
def test_input_and_target_have_unit_variance_at_every_level(schedule_name: str) -> None:
    schedule = SCHEDULES[schedule_name]()
    predictor, model = dl.EDMPredictor(schedule), dl.EDMPreconditioning(Network(), schedule)
    for t in torch.linspace(schedule.first, schedule.terminal, 5, dtype=torch.float64):
        x0, noise = 0.5 * torch.randn(1, 1, 200, 200), torch.randn(1, 1, 200, 200)
        model(schedule.q_sample(x0, noise, t), t[None])
        assert abs(model.model.got[0].std() - 1) < 0.02
        assert abs(predictor.target(x0, noise, t).std() - 1) < 0.02


@pytest.mark.parametrize("schedule_name", SCHEDULES)
def test_times_are_finite_and_increase_with_the_noise_from_clean_data_to_the_last(schedule_name: str) -> None:
    schedule = SCHEDULES[schedule_name]()
    model = dl.EDMPreconditioning(Network(), schedule)
    t = torch.linspace(schedule.clean, schedule.terminal, 30, dtype=torch.float64)
    model(torch.randn(30, 1, 1, 1), t)
    c_noise = model.model.got[1]
    assert c_noise[0] == -2.5  # sigma = 0
    assert (c_noise[1:].diff() > 0).all()
    assert c_noise.abs().max() <= 2.5


def test_a_time_scale_makes_a_network_tell_the_times_apart() -> None:
    """An untrained U-Net's outputs at neighbouring noise levels: as far apart as those of steps of DDPM."""
    x = torch.randn(1, 1, 8, 8).expand(20, -1, -1, -1)

    def difference(model: nn.Module, times: Tensor) -> Tensor:
        y = model(x, times).prediction
        return (y.diff(dim=0).square().mean() / y.square().mean()).sqrt()

    c_noise, steps = torch.linspace(-1.6, 1.1, 20), torch.linspace(0, 999, 20)
    with torch.no_grad():
        usual = difference(network(), steps)
        assert difference(network(time_scale=1000 / 2.7), c_noise) > 0.5 * usual
        assert difference(network(), c_noise) < 0.5 * usual


def test_sigma_data_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"sigma_data \(0\)"):
        dl.EDMPreconditioning(Network(), SCHEDULES["edm"](), sigma_data=0)
