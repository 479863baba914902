"""Configurations of diffusers against the schedulers that diffusers makes of them."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_classes import DEFAULTS, REFUSED_CLASSES
from tests.catalogue import TinyNetwork

diffusers = pytest.importorskip("diffusers", reason="diffusers is the independent implementation")

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers with new numpy, and its deprecated schedulers

NEED_TORCHSDE = {"CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler"}  # diffusers cannot import them without
REFUSED_DEFAULTS = {"CosineDPMSolverMultistepScheduler": "prediction_type='v_prediction' is -F"}


def scheduler_classes() -> dict[str, type]:
    """Every scheduler class that is in the package, exported or not."""
    found = {}
    for module in pkgutil.walk_packages(diffusers.schedulers.__path__, "diffusers.schedulers."):
        try:
            names = vars(importlib.import_module(module.name))
        except ModuleNotFoundError:  # torchsde; the test of the defaults fails if a class is missing
            continue
        for name, item in names.items():
            if inspect.isclass(item) and issubclass(item, diffusers.ConfigMixin) and item.__module__ == module.name:
                found[name] = item
    return found


CLASSES = scheduler_classes() if hasattr(diffusers, "schedulers") else {}
DISCRETE = [name for name in CLASSES if "beta_schedule" in DEFAULTS.get(name, {})]
WHOLE = ["DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "CogVideoXDDIMScheduler"]
K = ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler"]
K += ["KDPM2AncestralDiscreteScheduler"]
MULTI_STEP = ["DPMSolverMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler", "UniPCMultistepScheduler"]
SINGLE = "DPMSolverSinglestepScheduler"
# Its times are those of KDPM2DiscreteScheduler, and take diffusers seconds
THEIR_TIMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "KDPM2AncestralDiscreteScheduler" else [])
    for name in (*K, *MULTI_STEP)
]
FLOW = ["FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler", "FlowMatchHeunDiscreteScheduler"]


def both(name: str, **keys):
    """Their scheduler, and our parts from the configuration that it saves."""
    scheduler = CLASSES[name](**keys)
    return scheduler, dl.from_diffusers_config({"_class_name": name, **dict(scheduler.config)})


def their_times(scheduler, steps: int, **options) -> Tensor:
    """One time per step, where a solver of several calls lists more."""
    scheduler.set_timesteps(steps, **options)
    times = torch.as_tensor(scheduler.timesteps).double()
    name = type(scheduler).__name__
    if "KDPM2" in name:
        return torch.cat([times[:1], times[2::2]])
    if "Heun" in name:
        return torch.cat([times[:1], times[2::2]])
    return times


def test_the_defaults_of_every_class_are_those_of_diffusers() -> None:
    assert set(CLASSES) | NEED_TORCHSDE == set(DEFAULTS) | set(REFUSED_CLASSES)
    assert not set(DEFAULTS) & set(REFUSED_CLASSES)
    for name, expected in DEFAULTS.items():
        if name in CLASSES:
            parameters = list(inspect.signature(CLASSES[name].__init__).parameters.values())[1:]
            assert {p.name: p.default for p in parameters} == expected, name


@pytest.mark.parametrize("name", CLASSES)
def test_the_default_configuration_of_every_class_is_taken_or_refused_by_key(name: str) -> None:
    if name in REFUSED_CLASSES:
        with pytest.raises(ValueError, match=f"_class_name='{name}' cannot be represented"):
            dl.from_diffusers_config({"_class_name": name})
        return
    if name in REFUSED_DEFAULTS:
        with pytest.raises(ValueError, match=REFUSED_DEFAULTS[name]):
            dl.from_diffusers_config({"_class_name": name})
        return
    parts = dl.from_diffusers_config({"_class_name": name})
    sampler = dl.DDIMSampler(
        TinyNetwork(), parts.schedule, parts.predictor, grid=parts.spacing, eval_steps=7, progress_bar=False
    )
    assert len(sampler.times()) == 7


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "trained"])
@pytest.mark.parametrize("zero", [False, True])
def test_alpha_and_sigma_are_their_cumulative_products(name: str, betas: str, zero: bool) -> None:
    """But for the last of a k-diffusion scheduler at zero SNR, which they set to 2^-24."""
    keys: dict[str, object] = {"beta_schedule": betas} if betas != "trained" else {"trained_betas": TRAINED}
    if zero and "rescale_betas_zero_snr" not in DEFAULTS[name]:
        pytest.skip("the class has no zero terminal SNR")
    if name == "UnCLIPScheduler" and betas != "squaredcos_cap_v2":
        pytest.skip("the class has one schedule")
    if zero:
        keys |= {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    scheduler, (schedule, _, _) = both(name, num_train_timesteps=200, **keys)
    t = torch.arange(200)
    expected = scheduler.alphas_cumprod.double()
    # their float32 products lose about 1e-7 a factor, against a last value of 1e-3 or less
    torch.testing.assert_close(schedule.alpha(t) ** 2, expected, rtol=2e-4, atol=1e-7)
    torch.testing.assert_close(schedule.sigma(t) ** 2, 1 - expected, rtol=2e-4, atol=1e-7)


TRAINED = np.linspace(0.001, 0.05, 200).tolist()


def test_sigmoid_betas() -> None:
    scheduler, (schedule, _, _) = both("DDPMScheduler", beta_schedule="sigmoid")
    torch.testing.assert_close(
        schedule.alpha(torch.arange(1000)) ** 2, scheduler.alphas_cumprod.double(), rtol=2e-4, atol=1e-7
    )


@pytest.mark.parametrize("name", [*WHOLE, "PNDMScheduler", *THEIR_TIMES])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_times_are_those_of_set_timesteps(name: str, spacing: str) -> None:
    for steps in (1, 2, 10, 64, 333):
        options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
        scheduler, (schedule, _, grid) = both(name, timestep_spacing=spacing, **options)
        if steps == 1 and (name == "PNDMScheduler" or spacing == "linspace"):
            assert grid(schedule, 1).tolist() == [{"leading": 0, "trailing": 999, "linspace": 999}[spacing]]
            continue  # theirs says pure noise is of time 0, or takes the time before the last twice
        expected = their_times(scheduler, steps)
        if name == "PNDMScheduler":
            expected = expected.unique().flip(0)  # theirs takes one of them twice
        torch.testing.assert_close(grid(schedule, steps).double(), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", [*WHOLE, *K, *MULTI_STEP])
def test_an_offset_moves_leading_times(name: str) -> None:
    scheduler, (schedule, _, grid) = both(name, timestep_spacing="leading", steps_offset=1)
    torch.testing.assert_close(grid(schedule, 20).double(), their_times(scheduler, 20))


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "SASolverScheduler", SINGLE])
@pytest.mark.parametrize("clipped", [-5.1, -2.0])
def test_a_clipped_lambda_leaves_out_the_noisiest_times(name: str, clipped: float) -> None:
    scheduler, (schedule, _, grid) = both(name, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=clipped)
    torch.testing.assert_close(grid(schedule, 20).double(), their_times(scheduler, 20))
    assert grid(schedule, 20)[0] < 999


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 49, 50])
def test_distilled_times(name: str, steps: int) -> None:
    scheduler, (schedule, _, grid) = both(name)
    assert grid(schedule, steps).tolist() == their_times(scheduler, steps).tolist()


def test_unclip_times() -> None:
    scheduler, (schedule, _, grid) = both("UnCLIPScheduler")
    for steps in (2, 10, 25, 64):
        assert grid(schedule, steps).tolist() == their_times(scheduler, steps).tolist()


@pytest.mark.parametrize("name", [*THEIR_TIMES, SINGLE])
@pytest.mark.parametrize("place", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])
def test_placed_noise_levels(name: str, place: str) -> None:
    """The levels are theirs; their times are rounded or truncated to integers in the multi-step solvers."""
    if place not in DEFAULTS[name]:
        pytest.skip("the class has no such key")
    for keys in ({}, {"beta_schedule": "squaredcos_cap_v2"}, {"timestep_spacing": "leading"}):
        if set(keys) - set(DEFAULTS[name]):
            continue
        scheduler, (schedule, _, grid) = both(name, **{place: True}, **keys)
        scheduler.alphas_cumprod = schedule.alpha(torch.arange(1000)) ** 2  # in place of their float32 one
        times, expected = grid(schedule, 12), their_times(scheduler, 12)
        tolerance = 1.0 if name in (*MULTI_STEP, SINGLE) else 0.5 if "KDPM2" in name else 1e-3
        assert (times - expected).abs().max() <= tolerance, (keys, times - expected)
        levels = scheduler.sigmas[scheduler.sigmas > 0].double().unique_consecutive()[:12]
        torch.testing.assert_close(schedule.sigma(times) / schedule.alpha(times), levels, rtol=1e-5, atol=0)


def test_the_range_of_placed_noise_levels() -> None:
    scheduler, (schedule, _, grid) = both(
        "EulerDiscreteScheduler", use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0
    )
    torch.testing.assert_close(grid(schedule, 9), their_times(scheduler, 9), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", FLOW)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"shift": 3.0},
        {"shift": 3.0, "num_train_timesteps": 500},
        {"shift_terminal": 0.1},
        {"shift": 2.0, "use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
    ],
    ids=str,
)
def test_flow_times(name: str, keys: dict[str, object]) -> None:
    if set(keys) - set(DEFAULTS[name]):
        pytest.skip("the class has no such key")
    scheduler, (schedule, predictor, grid) = both(name, **keys)
    for steps in (2, 10, 28):
        times = grid(schedule, steps)
        torch.testing.assert_close(times, their_times(scheduler, steps), rtol=1e-4, atol=1e-3)
        levels = scheduler.sigmas.double()
        levels = torch.cat([levels[:1], levels[1:-1:2]]) if "Heun" in name else levels[:-1]
        torch.testing.assert_close(schedule.sigma(times), levels, rtol=1e-4, atol=1e-6)
    assert predictor.coefficients(0.5, 0.5) == (-1.0, 1.0)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_dynamic_shifting(kind: str) -> None:
    """mu as the pipelines compute it, from the number of tokens."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, time_shift_type=kind)
    schedule, _, grid = dl.from_diffusers_config({**FLUX, "time_shift_type": kind}, image_seq_len=1024)
    mu = 1024 * (1.15 - 0.5) / (4096 - 256) + 0.5 - 256 * (1.15 - 0.5) / (4096 - 256)
    torch.testing.assert_close(grid(schedule, 20), their_times(scheduler, 20, mu=mu), rtol=1e-5, atol=1e-3)


FLUX = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "shift": 3.0}


@pytest.mark.parametrize("name", [*MULTI_STEP, SINGLE])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sigmas_of_multi_step_solvers(name: str, shift: float) -> None:
    """The levels are theirs; their times are truncated to integers."""
    scheduler, (schedule, _, grid) = both(
        name, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    )
    for steps in (2, 10, 25):
        times, expected = grid(schedule, steps), their_times(scheduler, steps)
        torch.testing.assert_close(schedule.sigma(times), scheduler.sigmas[:-1].double(), rtol=1e-5, atol=2e-6)
        assert (times - expected <= 1 + 1e-6).all()
        assert (times - expected >= -1e-6).all()


def test_a_stretched_flow_of_unipc() -> None:
    scheduler, (schedule, _, grid) = both(
        "UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction", shift_terminal=0.1
    )
    scheduler.set_timesteps(10)
    torch.testing.assert_close(schedule.sigma(grid(schedule, 10)), scheduler.sigmas[:-1].double(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("keys", [{}, {"rho": 5.0}, {"sigma_schedule": "exponential"}], ids=str)
def test_edm_noise_levels_and_preconditioning(name: str, keys: dict[str, object]) -> None:
    scheduler, (schedule, predictor, grid) = both(name, sigma_data=0.7, sigma_max=50.0, **keys)
    scheduler.set_timesteps(18)
    times = grid(schedule, 18)
    torch.testing.assert_close(times, scheduler.sigmas[:-1].double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(times.log() / 4, scheduler.timesteps.double(), rtol=1e-4, atol=1e-5)  # what theirs says
    x, y = torch.randn(2, 18, 3, dtype=torch.float64)
    expected = scheduler.precondition_outputs(x, y, times[:, None])
    torch.testing.assert_close(predictor.predict_x0(y, x, times), expected)


def test_score_sde() -> None:
    scheduler, (schedule, predictor, grid) = both("ScoreSdeVeScheduler", sigma_max=50.0, sampling_eps=0.01)
    scheduler.set_timesteps(30)
    scheduler.set_sigmas(30)
    times = grid(schedule, 30)
    torch.testing.assert_close(times, scheduler.sigmas.double(), rtol=1e-5, atol=0)
    x0, noise = torch.randn(2, 30, 3, dtype=torch.float64)
    expected = -noise / scheduler.sigmas.double()[:, None]
    torch.testing.assert_close(predictor.target(x0, noise, times), expected, rtol=1e-5, atol=1e-6)

    scheduler, (schedule, _, grid) = both("ScoreSdeVpScheduler")
    scheduler.set_timesteps(30)
    torch.testing.assert_close(grid(schedule, 30), scheduler.timesteps.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "LMSDiscreteScheduler"]
)
def test_add_noise_is_q_sample(name: str) -> None:
    """LMS noises in k-diffusion's scale, x / alpha."""
    scheduler, (schedule, _, _) = both(name, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[[1, 5, 9]].long()
    x0, noise = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)
    expected = scheduler.add_noise(x0, noise, t.float() if "LMS" in name else t)
    scale = schedule.alpha(t).reshape(3, 1, 1, 1) if "LMS" in name else 1.0
    torch.testing.assert_close(schedule.q_sample(x0, noise, t), expected * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FLOW[:1])
def test_scale_noise_is_q_sample(name: str) -> None:
    scheduler, (schedule, _, grid) = both(name, shift=3.0)
    scheduler.set_timesteps(5)
    x0, noise = torch.randn(2, 5, 1, 8, 8, dtype=torch.float64)
    expected = scheduler.scale_noise(x0, scheduler.timesteps, noise)
    torch.testing.assert_close(schedule.q_sample(x0, noise, grid(schedule, 5)), expected, rtol=1e-5, atol=1e-6)


CLAMPS = {
    "neither": {},
    "clipped": {"clip_sample": True, "clip_sample_range": 1.5},
    "threshold of the default limit": {"thresholding": True},
    "threshold": {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.7},
}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "LCMScheduler"])
def test_x0_is_their_pred_original_sample(name: str, prediction: str, clamp: str) -> None:
    keys = {"clip_sample": False, **CLAMPS[clamp]}
    scheduler, (_, predictor, _) = both(name, prediction_type=prediction, **keys)
    scheduler.set_timesteps(5)
    x, y = 2 * torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
    for t in scheduler.timesteps[:-1]:
        step = scheduler.step(y, int(t), x, return_dict=False)
        expected = step[1]
        if name == "LCMScheduler":  # its second output is a consistency function of x0: c_skip x + c_out x0
            scaled = 10.0 * t.double()
            skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()
            expected = (expected - skip * x) / out
        torch.testing.assert_close(predictor.predict_x0(y, x, t), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_x0_of_schedulers_by_noise_level(name: str, prediction: str) -> None:
    scheduler, (schedule, predictor, _) = both(name, prediction_type=prediction, timestep_spacing="trailing")
    scheduler.set_timesteps(5)
    x, y = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
    t = scheduler.timesteps[0]
    if name == "EulerDiscreteScheduler":
        expected = scheduler.step(y, t, x / schedule.alpha(t.double())).pred_original_sample
    else:
        scheduler._init_step_index(t)
        expected = scheduler.convert_model_output(y, sample=x)
    torch.testing.assert_close(predictor.predict_x0(y, x, t.double()), expected, rtol=1e-4, atol=1e-3)


def test_their_flow_step_is_the_predictor_s() -> None:
    scheduler, (schedule, predictor, grid) = both("FlowMatchEulerDiscreteScheduler", shift=3.0)
    scheduler.set_timesteps(6)
    x, y = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
    for t, s in zip(scheduler.timesteps[:-1], grid(schedule, 6)[1:], strict=True):
        x0, eps = predictor.denoise(y, x, t.double())
        expected = scheduler.step(y, t, x).prev_sample
        torch.testing.assert_close(schedule.alpha(s) * x0 + schedule.sigma(s) * eps, expected, rtol=1e-5, atol=1e-6)


def test_a_whole_run_of_ddim_is_theirs_to_the_last_step() -> None:
    """With the configuration of Stable Diffusion 1; they then leave sigma(0) of noise in the sample, we do not."""
    config = {**STABLE_DIFFUSION, "_class_name": "DDIMScheduler"}
    scheduler = diffusers.DDIMScheduler.from_config(config)
    schedule, predictor, grid = dl.from_diffusers_config(config)
    network = TinyNetwork().double()
    sampler = dl.DDIMSampler(network, schedule, predictor, grid=grid, eval_steps=20, progress_bar=False).eval()
    x = noise = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    scheduler.set_timesteps(20)
    path = list(sampler.generator(noise))
    with torch.no_grad():
        for t, ours in zip(scheduler.timesteps, path, strict=True):
            step = scheduler.step(network(x, t.expand(2)).prediction, t, x)
            expected = step.pred_original_sample if t == scheduler.timesteps[-1] else step.prev_sample
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
            x = step.prev_sample


STABLE_DIFFUSION = {
    "_diffusers_version": "0.6.0",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
