"""Tables of betas, and what is refused."""

import math

import pytest
import torch

import diffusion_labs as dl


def test_cosine_is_the_paper_s_alpha_until_betas_are_clipped() -> None:
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    for t in (0, 10, 500, 900):
        f = [math.cos(((step / 1000) + 0.008) / 1.008 * math.pi / 2) ** 2 for step in (0, t + 1)]
        assert schedule.alpha(torch.tensor(t)).item() ** 2 == pytest.approx(f[1] / f[0], rel=1e-9)


def test_linear_ends_where_ddpm_does_and_scales_with_the_number_of_steps() -> None:
    for steps in (1000, 500, 4000):
        betas = dl.linear_beta_schedule(steps)
        assert betas[0].item() == pytest.approx(1e-4 * 1000 / steps)
        assert betas[-1].item() == pytest.approx(0.02 * 1000 / steps)
    assert dl.linear_beta_schedule(10, 0.1, 0.2)[[0, -1]].tolist() == [0.1, 0.2]


def test_scaled_and_quadratic_are_linear_in_the_square_root() -> None:
    for betas in (dl.scaled_linear_beta_schedule(100), dl.quadratic_beta_schedule(100)):
        torch.testing.assert_close(betas.sqrt().diff(n=2), torch.zeros(98, dtype=torch.float64), atol=1e-15, rtol=0)


def test_sigmoid_is_symmetric_about_its_middle() -> None:
    betas = dl.sigmoid_beta_schedule(101, 0.0, 1.0)
    torch.testing.assert_close(betas + betas.flip(0), torch.ones(101, dtype=torch.float64))


def test_zero_terminal_snr_keeps_the_first_alpha_and_ends_in_noise() -> None:
    plain = dl.scaled_linear_beta_schedule()
    schedule = dl.DiscreteGaussianSchedule(dl.rescale_zero_terminal_snr(plain))
    before = dl.DiscreteGaussianSchedule(plain)
    ends = torch.tensor([0, 999])
    assert schedule.alpha(ends)[0].item() == pytest.approx(before.alpha(ends)[0].item(), rel=1e-12)
    assert schedule.alpha(ends)[1] == 0
    assert schedule.sigma(ends)[1] == 1


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        (torch.tensor(0.1), r"shape \[\]"),
        (torch.tensor([0.1]), r"shape \[1\]"),
        (torch.tensor([0.1, 0.0]), r"in \(0, 1\]"),
        (torch.tensor([0.1, 1.2]), r"in \(0, 1\]"),
        (torch.tensor([1.0, 0.2]), "only the last may be 1"),
        (torch.tensor([0.1, float("nan")]), r"in \(0, 1\]"),
        (torch.tensor([0.5, 1e-20]), "too small"),
    ],
)
def test_impossible_betas_are_named(betas: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.DiscreteGaussianSchedule(betas)


def test_a_time_beyond_the_last_is_an_error() -> None:
    schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(50))
    with pytest.raises(IndexError):
        schedule.alpha(torch.tensor([50]))


def test_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"steps \(1\) must be at least 2"):
        dl.linear_beta_schedule(1)


def test_betas_above_one_are_refused_by_their_steps() -> None:
    with pytest.raises(ValueError, match=r"the last beta is 1.33, above 1, with steps \(15\)"):
        dl.linear_beta_schedule(15)
    assert dl.linear_beta_schedule(20)[-1] == 1
