"""Laws of every schedule."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import SCHEDULES


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> dl.Schedule:
    return SCHEDULES[request.param]()


def times(schedule: dl.Schedule, count: int = 400) -> Tensor:
    """Whole and fractional times over the range, clean data and the last time included."""
    fraction = torch.linspace(0, 1, count, dtype=torch.float64)
    inside = schedule.clean + fraction * (schedule.terminal - schedule.clean)
    return torch.cat([inside, inside[1:-1].round()]).unique()


def test_starts_clean(schedule: dl.Schedule) -> None:
    clean = torch.tensor(schedule.clean)
    assert schedule.alpha(clean) == 1
    assert schedule.sigma(clean) == 0


def test_log_snr_strictly_decreases(schedule: dl.Schedule) -> None:
    assert (schedule.log_snr(times(schedule)).diff() < 0).all()


def test_log_snr_is_that_of_alpha_and_sigma(schedule: dl.Schedule) -> None:
    t = times(schedule)
    expected = 2 * (schedule.alpha(t).log() - schedule.sigma(t).log())
    torch.testing.assert_close(schedule.log_snr(t), expected, rtol=1e-9, atol=1e-9)


def test_time_inverts_log_snr(schedule: dl.Schedule) -> None:
    t = times(schedule)
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, rtol=1e-8, atol=1e-9)


def test_transitions_compose(schedule: dl.Schedule) -> None:
    t = times(schedule, 31)
    r, s, t = t[:-2], t[1:-1], t[2:]
    alpha_rs, sigma_rs = schedule.transition(r, s)
    alpha_st, sigma_st = schedule.transition(s, t)
    alpha_rt, sigma_rt = schedule.transition(r, t)
    torch.testing.assert_close(alpha_rs * alpha_st, alpha_rt)
    torch.testing.assert_close((sigma_st**2 + (alpha_st * sigma_rs) ** 2).sqrt(), sigma_rt)


def test_transition_from_clean_data_is_the_process(schedule: dl.Schedule) -> None:
    t = times(schedule)[1:]
    alpha, sigma = schedule.transition(torch.full_like(t, schedule.clean), t)
    torch.testing.assert_close(alpha, schedule.alpha(t))
    torch.testing.assert_close(sigma, schedule.sigma(t))


def test_posterior_is_that_of_bayes(schedule: dl.Schedule) -> None:
    """q(x_s | x_t, x_0) from the precisions of q(x_s | x_0) and q(x_t | x_s): the product of two Gaussians."""
    t = times(schedule, 41)[2:]
    s = schedule.clean + (t - schedule.clean) * 0.7
    x0, xt = torch.randn(2, len(t), 3, dtype=torch.float64)
    alpha_s, sigma_s = schedule.alpha(s)[:, None], schedule.sigma(s)[:, None]
    alpha_ts, sigma_ts = (value[:, None] for value in schedule.transition(s, t))
    precision = 1 / sigma_s**2 + alpha_ts**2 / sigma_ts**2
    expected = (alpha_s * x0 / sigma_s**2 + alpha_ts * xt / sigma_ts**2) / precision

    mean, log_variance = schedule.q_posterior(x0, xt, t, s=s)
    torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(log_variance, -precision.log(), rtol=1e-8, atol=1e-8)


def test_posterior_variance_interpolates_between_its_bounds(schedule: dl.Schedule) -> None:
    t = times(schedule, 41)[2:]
    s = schedule.clean + (t - schedule.clean) * 0.7
    x = torch.zeros(len(t), 1, dtype=torch.float64)
    small, half, large = (schedule.q_posterior(x, x, t, v, s)[1] for v in (0.0, 0.5, 1.0))
    torch.testing.assert_close(large.squeeze(), 2 * schedule.transition(s, t)[1].log())
    torch.testing.assert_close(half, (small + large) / 2)


def test_posterior_at_the_first_step_is_the_clean_data(schedule: dl.Schedule) -> None:
    x0, xt = torch.randn(2, 1, 3)
    t = torch.full((1,), schedule.first, dtype=torch.float64)
    mean, log_variance = schedule.q_posterior(x0, xt, t, s=torch.full_like(t, schedule.clean))
    torch.testing.assert_close(mean, x0)
    assert log_variance.isfinite().all()


def test_q_sample_has_the_process_s_mean_and_spread(schedule: dl.Schedule) -> None:
    t = schedule.snap(torch.tensor([(schedule.first + schedule.terminal) / 2], dtype=torch.float64)).expand(20_000)
    x0 = torch.full((20_000, 1), 2.0)
    xt = schedule.q_sample(x0, schedule.sample_noise(x0), t)
    alpha, sigma = schedule.alpha(t[0]).item(), schedule.sigma(t[0]).item()
    standard_error = sigma / 20_000**0.5
    assert abs(xt.mean().item() - 2 * alpha) < 5 * standard_error
    assert abs(xt.std().item() - sigma) < 5 * standard_error


def test_training_times_are_on_the_schedule(schedule: dl.Schedule) -> None:
    t = schedule.sample_steps(torch.zeros(5000, 1))
    assert t.shape == (5000,)
    assert t.min() >= schedule.first
    assert t.max() <= schedule.terminal
    low, high = (schedule.log_snr(end.double()) for end in (t.max(), t.min()))
    assert high > 2  # data
    assert low < -2  # and noise are both met


def test_precision_survives_every_conversion(schedule: dl.Schedule) -> None:
    """Tables stay in float64 through ``.to``, ``.half``, copies, pickles and a stay on the meta device."""
    t = times(schedule)
    expected = schedule.alpha(t)
    schedules = [
        copy.deepcopy(schedule).to(torch.bfloat16),
        copy.deepcopy(schedule).half(),
        copy.deepcopy(schedule).to("meta"),
        copy.deepcopy(schedule).to("meta").to_empty(device="cpu"),
        pickle.loads(pickle.dumps(schedule)),
    ]
    for other in schedules:
        assert torch.equal(other.alpha(t), expected)
    assert schedule.state_dict() == {}


def test_is_whole_when_built_on_the_meta_device(schedule: dl.Schedule, request: pytest.FixtureRequest) -> None:
    with torch.device("meta"):
        built = SCHEDULES[request.node.callspec.params["schedule"]]()
    t = times(schedule)
    assert torch.equal(built.alpha(t), schedule.alpha(t))


def test_names_a_time_of_the_wrong_shape(schedule: dl.Schedule) -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"t has shape \[2\], but x has \[3, 2\]"):
        schedule.at(torch.zeros(2), x)
