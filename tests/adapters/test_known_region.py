"""Inpainting by replacement, and the resampling that makes it fit: laws, and the conditional distribution."""

from itertools import pairwise

import pytest
import torch

import diffusion_labs as dl
from tests.adapters.gaussian import CorrelatedGaussian, conditional, moments
from tests.catalogue import SAMPLERS, SCHEDULES, SOLVERS, TinyNetwork

MASK = torch.tensor([0.0, 0.0, 1.0, 1.0]).double().reshape(1, 1, 4, 1)
IMAGE = torch.tensor([0.9, 1.0, 7.0, 7.0]).double().reshape(1, 1, 4, 1)  # where it is painted it is not used


def known(count: int) -> dict[str, torch.Tensor]:
    return {"mask": MASK.expand(count, -1, -1, -1), "masked_image": IMAGE.expand(count, -1, -1, -1)}


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("schedule_name", ["zero_terminal_snr", "variance_exploding"])
def test_every_sampler_ends_with_the_known_pixels(sampler: str, schedule_name: str) -> None:
    schedule = SCHEDULES[schedule_name]()
    predictor = dl.VPredictor(schedule)
    model = dl.KnownRegion(TinyNetwork(), predictor).double()
    noise = schedule.sample_prior((2, 1, 4, 1), dtype=torch.float64)
    x = SAMPLERS[sampler](model, schedule, predictor, eval_steps=6, progress_bar=False).eval()(
        noise, conditional_inputs=known(2)
    )
    # LCM's last estimate is c_skip x_t + c_out x0, by definition, with c_skip below 1e-6
    atol = 1e-6 if sampler == "lcm" else 1e-9
    torch.testing.assert_close(x[:, :, :2], IMAGE[:, :, :2].expand(2, -1, -1, -1), rtol=0, atol=atol)


def test_ddpm_draws_the_known_pixels_from_the_process_at_every_level() -> None:
    """Mean alpha_s image and standard deviation sigma_s, and from t to s the correlation of the forward process."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    model = dl.KnownRegion(TinyNetwork(), predictor).double()
    sampler = dl.DDPMSampler(model, schedule, predictor, eval_steps=5, progress_bar=False).eval()
    n = 20_000
    start = schedule.q_sample(known(n)["masked_image"], torch.randn(n, 1, 4, 1).double(), torch.tensor(999))
    path = [start, *sampler.generator(start, conditional_inputs=known(n))][:-1]
    levels = schedule.levels(sampler.times())
    noises = [(x[:, 0, 0, 0] - level.alpha * 0.9) / level.sigma for x, level in zip(path, levels, strict=True)]
    for noise in noises:
        assert abs(noise.mean()) < 5 / n**0.5
        assert abs(noise.std() - 1) < 5 / (2 * n) ** 0.5
    for (before, t), (after, s) in pairwise(zip(noises, levels, strict=True)):
        expected = t.alpha * s.sigma / (s.alpha * t.sigma)
        assert abs((before * after).mean() - expected) < 7 / n**0.5


def test_deterministic_samplers_keep_the_noise_of_the_known_pixels() -> None:
    schedule = SCHEDULES["rectified_flow"]()
    predictor = dl.FlowPredictor(schedule)
    model = dl.KnownRegion(TinyNetwork(), predictor).double()
    sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=5, progress_bar=False).eval()
    x = schedule.sample_prior((2, 1, 4, 1), dtype=torch.float64)
    for level, xt in zip(schedule.levels(sampler.times())[1:], sampler.generator(x, None, known(2)), strict=False):
        expected = level.alpha * IMAGE + level.sigma * x
        torch.testing.assert_close(xt[:, :, :2], expected[:, :, :2])


def test_resampling_brings_replacement_to_the_conditional_distribution() -> None:
    """Gaussian data with a correlation of 0.9 between neighbours, the unknown pixels given the known ones.

    Replacement alone is biased, by more than the spread of the conditional distribution. The bias of the mean
    falls with the resamplings, to less than a quarter with ten.
    """
    schedule = dl.CosineSchedule()
    predictor = dl.VPredictor(schedule)
    distance = (torch.arange(4)[:, None] - torch.arange(4)).abs().double()
    mean, covariance = torch.tensor([0.2, -0.1, 0.3, 0.0]).double(), 0.5 * 0.9**distance
    model = dl.KnownRegion(CorrelatedGaussian(predictor, mean, covariance), predictor)
    exact, spread = conditional(mean, covariance, torch.eye(4).double()[:2], IMAGE[0, 0, :2, 0])

    n = 1000
    noise = schedule.sample_prior((n, 1, 4, 1), dtype=torch.float64)
    biases = []
    for resamplings in (1, 3, 10):
        sampler = dl.RePaintSampler(
            model,
            schedule,
            predictor,
            resamplings=resamplings,
            jump_length=1,
            eval_steps=30,
            grid=dl.uniform_log_snr,
            progress_bar=False,
        )
        x = sampler.eval()(noise, conditional_inputs=known(n))
        biases.append((moments(x)[0] - exact)[2:].abs().mean().item())
    assert biases[0] > spread[2, 2].sqrt(), biases
    assert all(after < 0.65 * before for before, after in pairwise(biases)), biases
    assert biases[-1] < 0.25 * biases[0], biases


def test_one_resampling_of_jumps_of_one_step_is_ddpm() -> None:
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    x = torch.randn(2, 1, 8, 8)
    ddpm, repaint, jumps = (
        make(TinyNetwork(), schedule, predictor, eval_steps=steps, progress_bar=False, **options).eval()
        for make, steps, options in (
            (dl.DDPMSampler, 20, {}),
            (dl.RePaintSampler, 20, {"resamplings": 1, "jump_length": 1}),
            (dl.RePaintSampler, 4, {"resamplings": 1, "jump_length": 5}),
        )
    )
    expected = list(ddpm.generator(x, generator=dl.seeded([1, 2])))
    torch.testing.assert_close(repaint(x, generator=dl.seeded([1, 2])), expected[-1], rtol=0, atol=0)
    # Four steps of five jumps at the times of DDPM: the first fifteen of its steps are the same
    coarse = next(jumps.generator(x, generator=dl.seeded([1, 2])))
    torch.testing.assert_close(coarse, expected[4], rtol=1e-4, atol=1e-4)


def test_a_resampled_step_visits_the_levels_of_the_paper() -> None:
    """Sec. 4.2: down the jump, back up, and down again; then one step to clean data."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    visited = []

    class Watched(TinyNetwork):
        def forward(self, x, timestep, conditional_inputs=None):
            visited.append(float(timestep[0]))
            return super().forward(x, timestep, conditional_inputs)

    sampler = dl.RePaintSampler(
        Watched(), schedule, predictor, resamplings=3, jump_length=2, eval_steps=2, progress_bar=False
    ).eval()
    sampler(torch.randn(1, 1, 8, 8))
    assert visited == [999, 749] * 3 + [499]


@pytest.mark.parametrize("training", [True, False])
def test_passes_through_where_nothing_is_known(training: bool) -> None:
    model = dl.KnownRegion(TinyNetwork(), dl.VPredictor(SCHEDULES["cosine"]())).train(training)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 500])
    given = {"mask": torch.zeros(2, 1, 8, 8), "masked_image": x} if training else {}
    assert torch.equal(model(x, t, given).prediction, model.model(x, t).prediction)


X = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"mask": X}, "needs both 'mask' and 'masked_image'"),
        ({"mask": X[:, :, :2], "masked_image": X}, r"\['mask'\] has shape \[2, 1, 2, 4\]; .* must be \[2, 1, 4, 4\]"),
        ({"mask": X, "masked_image": X.expand(2, 3, 4, 4)}, r"\['masked_image'\] has shape \[2, 3, 4, 4\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(conditions: dict[str, torch.Tensor], message: str) -> None:
    model = dl.KnownRegion(TinyNetwork(), dl.VPredictor(SCHEDULES["cosine"]())).eval()
    with pytest.raises(ValueError, match=message):
        model(X, torch.zeros(2, dtype=torch.long), conditions)


@pytest.mark.parametrize("name", ["resamplings", "jump_length"])
def test_numbers_of_repaint_must_be_positive(name: str) -> None:
    schedule = SCHEDULES["cosine"]()
    with pytest.raises(ValueError, match=rf"{name} \(0\)"):
        dl.RePaintSampler(TinyNetwork(), schedule, dl.VPredictor(schedule), **{name: 0})
