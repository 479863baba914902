"""The solver that is fitted to a model: what it is exact for, what it gains, and what it refuses."""

import json

import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import SCHEDULES, TinyNetwork

QUIET = {"progress_bar": False}
MEANS = torch.tensor([[-1.0, 0.3, 0.8], [0.9, -0.2, -0.5], [0.1, 0.9, -0.9], [0.2, -1.0, 0.4]], dtype=torch.float64)


def parts(schedule: str, means: torch.Tensor, std: float) -> tuple[dl.IdealDenoiser, dl.Schedule, dl.Predictor]:
    made = SCHEDULES[schedule]()
    predictor = dl.VPredictor(made)
    return dl.IdealDenoiser(predictor, means, std), made, predictor


def noise(schedule: dl.Schedule, seed: int, count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return schedule.sample_prior((count, 3), generator).double()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_weights_it_is_ddim(schedule: str) -> None:
    model, made, predictor = parts(schedule, MEANS, 0.1)
    x = noise(made, 0)
    fitted, ddim = (
        sampler(model, made, predictor, eval_steps=7, **QUIET).eval() for sampler in (dl.FittedSampler, dl.DDIMSampler)
    )
    torch.testing.assert_close(fitted(x), ddim(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eval_steps", [1, 3])
def test_for_one_gaussian_any_number_of_steps_is_exact(schedule: str, eval_steps: int) -> None:
    """All points of a path are then sums of x_t and its estimate, with weights that are those of every path."""
    model, made, predictor = parts(schedule, MEANS[:1], 0.3)
    steps = 200 if made.resolution == 0 else None  # all of a discrete one
    precise = dl.DDIMSampler(model, made, predictor, eval_steps=steps, **QUIET).eval()
    fitted = dl.FittedSampler.fit(precise, noise(made, 0), eval_steps=eval_steps)
    fresh = noise(made, 1)
    torch.testing.assert_close(fitted(fresh), precise(fresh), rtol=1e-5, atol=1e-5)


def test_at_the_steps_of_ddim_the_weights_are_those_of_ddim() -> None:
    model, made, predictor = parts("cosine", MEANS, 0.1)
    ddim = dl.DDIMSampler(model, made, predictor, eval_steps=9, **QUIET).eval()
    fitted = dl.FittedSampler.fit(ddim, noise(made, 0), eval_steps=9, grid=dl.trailing, order=3)
    for row in fitted.weights:
        assert row[0] ** 2 + row[1] ** 2 == pytest.approx(1, abs=1e-6)
        assert row[2:] == pytest.approx([0.0] * len(row[2:]), abs=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "rectified_flow", "zero_terminal_snr"])
def test_on_fresh_noise_it_is_nearer_than_solvers_that_do_not_know_the_model(schedule: str) -> None:
    model, made, predictor = parts(schedule, MEANS, 0.2)
    precise = dl.DDIMSampler(model, made, predictor, eval_steps=900, **QUIET).eval()
    fitted = dl.FittedSampler.fit(precise, noise(made, 0), eval_steps=8)
    fresh = noise(made, 1, 500)
    aim = precise(fresh)

    def error(sampler: dl.Sampler) -> float:
        return (sampler.eval()(fresh) - aim).square().mean().sqrt().item()

    options = {"eval_steps": 8, **QUIET}
    others = [
        error(solver(model, made, predictor, grid=grid, **options))
        for solver in (dl.DDIMSampler, dl.DPMSolverPP2MSampler, dl.UniPCSampler, dl.DEISSampler)
        for grid in (dl.trailing, dl.linspace)
    ]
    assert error(fitted) < min(others) / 1.5


def test_stored_weights_make_the_same_samples_to_the_bit() -> None:
    model, made, predictor = parts("cosine", MEANS, 0.2)
    precise = dl.DDIMSampler(model, made, predictor, eval_steps=50, **QUIET).eval()
    fitted = dl.FittedSampler.fit(precise, noise(made, 0), eval_steps=5, order=3)
    stored = json.loads(json.dumps({"times": fitted.times().tolist(), "weights": fitted.weights}))
    grid = dl.at_times(stored["times"])
    options = {"eval_steps": 5, "grid": grid, "weights": stored["weights"], **QUIET}
    again = dl.FittedSampler(model, made, predictor, **options).eval()
    fresh = noise(made, 1)
    assert torch.equal(again(fresh), fitted(fresh))


@pytest.mark.slow
def test_the_loop_of_fitted_weights_is_one_graph() -> None:
    made = SCHEDULES["cosine"]()
    network = TinyNetwork().eval()
    precise = dl.DDIMSampler(network, made, dl.VPredictor(made), eval_steps=20, **QUIET).eval()
    x = torch.randn(8, 1, 8, 8)
    fitted = dl.FittedSampler.fit(precise, x, eval_steps=4)
    torch.testing.assert_close(torch.compile(fitted, fullgraph=True)(x), fitted(x), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_fitted_is_named() -> None:
    model, made, predictor = parts("cosine", MEANS, 0.2)
    x = noise(made, 0)
    precise = dl.DDIMSampler(model, made, predictor, eval_steps=20, **QUIET).eval()
    fit = dl.FittedSampler.fit
    with pytest.raises(ValueError, match=r"order \(0\) must be at least 1"):
        fit(precise, x, eval_steps=4, order=0)
    with pytest.raises(ValueError, match=r"eval_steps \(0\) must be at least 1"):
        fit(precise, x, eval_steps=0)
    with pytest.raises(ValueError, match=r"train mode; call \.eval\(\)"):
        fit(dl.DDIMSampler(model, made, predictor, **QUIET), x, eval_steps=4)
    with pytest.raises(ValueError, match="DDPMSampler draws noise"):
        fit(dl.DDPMSampler(model, made, predictor, eval_steps=20, **QUIET).eval(), x, eval_steps=4)
    with pytest.raises(ValueError, match="makes 20 steps, too few"):
        fit(precise, x, eval_steps=19)
    with pytest.raises(ValueError, match="not finite"):
        fit(precise, x * torch.nan, eval_steps=4)


def test_weights_that_do_not_fit_the_grid_are_named() -> None:
    model, made, predictor = parts("cosine", MEANS, 0.2)
    with pytest.raises(ValueError, match="weights are of 2 steps, but the grid has 3"):
        dl.FittedSampler(model, made, predictor, weights=[(1.0, 0.0)] * 2, eval_steps=3)
    with pytest.raises(ValueError, match="two or more numbers"):
        dl.FittedSampler(model, made, predictor, weights=[(1.0,)] * 3, eval_steps=3)
    fitted = dl.FittedSampler(model, made, predictor, weights=[(1.0, 0.0)] * 3, eval_steps=3, **QUIET).eval()
    with pytest.raises(ValueError, match=r"not from start \(500\)"):
        fitted(noise(made, 0), start=500)
