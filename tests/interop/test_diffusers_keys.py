"""Configurations of diffusers, read without diffusers."""

import json
import pickle
from pathlib import Path

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_classes import DEFAULTS, PARAMETER_KEYS, REFUSED_CLASSES, SOLVER_KEYS, UNREAD_KEYS

# Of the repositories of the models
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
STABLE_DIFFUSION_XL = {
    **STABLE_DIFFUSION,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}

# Another value of each key that is used, and what must be on for it to matter
BETAS = [0.1] * 1000
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
DYNAMIC = {"use_dynamic_shifting": True}
CHANGES: dict[str, tuple[object, dict[str, object]]] = {
    "num_train_timesteps": (500, {}),
    "beta_start": (2e-4, {"beta_schedule": "linear"}),
    "beta_end": (0.03, {"beta_schedule": "linear"}),
    "beta_schedule": ("sigmoid", {}),
    "trained_betas": (BETAS, {}),
    "prediction_type": ("sample", {}),
    "timestep_spacing": ("trailing", {}),
    "steps_offset": (1, {"timestep_spacing": "leading"}),
    "rescale_betas_zero_snr": (True, {"prediction_type": "v_prediction"}),
    "clip_sample": (True, {"clip_sample": False}),
    "clip_sample_range": (2.0, {"clip_sample": True}),
    "thresholding": (True, {"clip_sample": False}),
    "dynamic_thresholding_ratio": (0.9, {"thresholding": True, "sample_max_value": 3.0}),
    "sample_max_value": (1.5, {"thresholding": True}),
    "use_karras_sigmas": (True, {}),
    "use_exponential_sigmas": (True, {}),
    "use_beta_sigmas": (True, {}),
    "use_lu_lambdas": (True, {}),
    "use_flow_sigmas": (True, {"prediction_type": "sample"}),
    "flow_shift": (3.0, FLOW),
    "use_dynamic_shifting": (True, {}),
    "time_shift_type": ("linear", DYNAMIC),
    "lambda_min_clipped": (-2.0, {}),
    "snr_shift_scale": (2.0, {}),
    "original_inference_steps": (25, {}),
    "interpolation_type": ("log_linear", {}),
    "timestep_type": ("continuous", {}),
    "sigma_min": (0.05, {"use_karras_sigmas": True}),
    "sigma_max": (9.0, {"use_karras_sigmas": True}),
    "sigma_data": (0.9, {}),
    "sigma_schedule": ("exponential", {"sigma_schedule": "karras"}),
    "rho": (5.0, {"sigma_schedule": "karras"}),
    "shift": (3.0, {}),
    "base_shift": (0.7, DYNAMIC),
    "max_shift": (1.5, DYNAMIC),
    "base_image_seq_len": (300, DYNAMIC),
    "max_image_seq_len": (5000, DYNAMIC),
    "invert_sigmas": (True, {}),
    "shift_terminal": (0.1, {}),
    "scale_factors": ([1, 2], {}),
    "sampling_eps": (0.01, {}),
    "beta_min": (0.2, {}),
    "beta_max": (10.0, {}),
}
USED = [
    pytest.param(name, key, id=f"{name}-{key}")
    for name, defaults in DEFAULTS.items()
    for key in defaults
    if key not in SOLVER_KEYS and key not in UNREAD_KEYS.get(name, ())
]


def parts(config: dict[str, object]) -> bytes:
    """All that a configuration gives: levels and prediction at its times, or the refusal."""
    try:
        schedule, predictor, spacing = dl.from_diffusers_config(config, image_seq_len=1000)
    except ValueError as error:
        return str(error).encode()
    times = spacing(schedule, 12).double()
    x = 3 * torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(12, 4) ** 3
    denoised = [*predictor.denoise(x.flip(0), x, times)]
    return pickle.dumps([v.tolist() for v in (times, schedule.alpha(times), schedule.sigma(times), *denoised)])


@pytest.mark.parametrize(("name", "key"), USED)
def test_every_key_is_used_or_refused(name: str, key: str) -> None:
    """Changing it changes the schedule, the prediction or the times, or is refused by name."""
    value, needed = CHANGES[key]
    needed = {k: v for k, v in needed.items() if k in DEFAULTS[name]}
    if name == "CosineDPMSolverMultistepScheduler" or name.startswith("EDM"):
        needed["prediction_type"] = "epsilon"
    if key == "shift_terminal" and "use_flow_sigmas" in DEFAULTS[name]:
        needed |= FLOW
    if key == "time_shift_type" and "use_flow_sigmas" in DEFAULTS[name]:
        pytest.skip("concerns use_dynamic_shifting, which is refused")
    if key == "use_dynamic_shifting" and "use_flow_sigmas" in DEFAULTS[name]:
        needed |= FLOW
    config = {"_class_name": name, **needed}
    before, after = parts(config), parts({**config, key: value})
    assert before != after
    assert after.startswith(b"\x80") or f"{key}=".encode() in after, after
    assert before.startswith(b"\x80"), before


@pytest.mark.parametrize("name", DEFAULTS)
def test_keys_of_the_solver_change_nothing(name: str) -> None:
    config = {"_class_name": name, **({"prediction_type": "epsilon"} if "prediction_type" in DEFAULTS[name] else {})}
    ignored = SOLVER_KEYS | UNREAD_KEYS.get(name, frozenset())
    assert parts({**config, **dict.fromkeys(ignored, "another")}) == parts(config)


@pytest.mark.parametrize("config", [STABLE_DIFFUSION, STABLE_DIFFUSION_XL], ids=["sd", "sdxl"])
def test_configurations_of_stable_diffusion(config: dict[str, object]) -> None:
    schedule, predictor, spacing = dl.from_diffusers_config(config)
    assert spacing(schedule, 4).tolist() == [751, 501, 251, 1]
    assert schedule.alpha(torch.tensor(999)).item() == pytest.approx(0.0682, abs=1e-4)
    assert predictor.coefficients(0.6, 0.8) == (0.0, 1.0)
    assert predictor.clamp is None
    assert pickle.loads(pickle.dumps(spacing))(schedule, 4).tolist() == [751, 501, 251, 1]


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**STABLE_DIFFUSION, "lambda_min_clipped": None}))
    for path in (file, str(file), file.parent, tmp_path):
        schedule, _, spacing = dl.from_diffusers_config(path)
        assert spacing(schedule, 4).tolist() == [751, 501, 251, 1]
    with pytest.raises(FileNotFoundError, match=r"neither a scheduler_config\.json nor a folder"):
        dl.from_diffusers_config(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": None}, "_class_name=None is not a scheduler"),
        ({"_class_name": "VQDiffusionScheduler"}, "_class_name='VQDiffusionScheduler' cannot .* noises tokens"),
        ({"beta_shedule": "linear"}, "PNDMScheduler: beta_shedule='linear' is not known"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True is a key of other schedulers"),
        ({"thresholding": True}, "thresholding=True is a key of other schedulers"),
        ({"beta_schedule": "laplace"}, "beta_schedule='laplace' cannot be represented; it must be one of"),
        ({"prediction_type": "flow"}, "prediction_type='flow' cannot"),
        ({"timestep_spacing": "random"}, "timestep_spacing='random' cannot"),
        ({"trained_betas": [0.1, 0.2]}, r"num_train_timesteps=1000 must be the number of trained_betas, 2"),
        ({"trained_betas": [0.0] * 1000}, r"trained_betas=.* gives no schedule: betas must lie in"),
        ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "prediction_type='epsilon' does not go"),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "sigma_max": 700.0},
            r"sigma_max=700.0 is not among the noise levels of the betas, 0.02917 to 14.61",
        ),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True},
            "use_beta_sigmas=True excludes use_karras_sigmas",
        ),
        (
            {"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 0.5},
            "sample_max_value=0.5 must be at least 1",
        ),
        ({"_class_name": "DDIMScheduler", "clip_sample": True, "clip_sample_range": 0}, "clip_sample_range=0 must"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True},
            "prediction_type='epsilon' cannot be represented",
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -2, "timestep_spacing": "trailing"},
            "lambda_min_clipped=-2 makes fewer steps",
        ),
        ({"_class_name": "LCMScheduler", "original_inference_steps": None}, "original_inference_steps=None must"),
    ],
)
def test_what_cannot_be_represented_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.from_diffusers_config({**STABLE_DIFFUSION, **changes})


def test_more_that_is_named() -> None:
    for changes, message in [
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}, "negate the output"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, "give image_seq_len"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas=True"),
    ]:
        with pytest.raises(ValueError, match=message):
            dl.from_diffusers_config(changes)
    schedule, _, spacing = dl.from_diffusers_config({"_class_name": "LCMScheduler"})
    with pytest.raises(ValueError, match=r"eval_steps \(51\) must be at most original_inference_steps \(50\)"):
        spacing(schedule, 51)


def test_the_tables_do_not_overlap() -> None:
    assert not set(DEFAULTS) & set(REFUSED_CLASSES)
    assert {case.values[1] for case in USED} == set(CHANGES)
    assert not SOLVER_KEYS & PARAMETER_KEYS
    assert set().union(*DEFAULTS.values()) >= SOLVER_KEYS | PARAMETER_KEYS


def test_a_run_from_a_flow_configuration_ends_at_the_data() -> None:
    """The network is told 1000 sigma; its exact form gives back the one image that the data has."""
    schedule, predictor, spacing = dl.from_diffusers_config(
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    )
    image = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    model = dl.IdealDenoiser(predictor, image)
    sampler = dl.EulerSampler(model, schedule, predictor, grid=spacing, eval_steps=8, progress_bar=False).eval()
    assert sampler.times()[0] == 1000
    x = schedule.sample_prior((2, 3, 2, 2), dtype=torch.float64)
    torch.testing.assert_close(sampler(x), image.double().expand(2, -1, -1, -1), rtol=0, atol=1e-6)
