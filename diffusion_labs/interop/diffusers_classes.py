"""The scheduler classes of diffusers 0.42 as plain data: their keys with defaults, and what becomes of each key."""

from typing import Any

Defaults = dict[str, Any]

_PROCESS: Defaults = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_LATENT: Defaults = {**_PROCESS, "beta_start": 0.00085, "beta_end": 0.012}
_SCALED: Defaults = {**_LATENT, "beta_schedule": "scaled_linear"}
_LEADING: Defaults = {"timestep_spacing": "leading", "steps_offset": 0}
_LINSPACE: Defaults = {"timestep_spacing": "linspace", "steps_offset": 0}
_ZERO_SNR: Defaults = {"rescale_betas_zero_snr": False}
_CLIP: Defaults = {"clip_sample": True, "clip_sample_range": 1.0}
_NO_CLIP: Defaults = {"clip_sample": False, "clip_sample_range": 1.0}
_THRESHOLD: Defaults = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_SIGMAS: Defaults = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW_SIGMAS: Defaults = {"use_flow_sigmas": False, "flow_shift": 1.0}
_DYNAMIC: Defaults = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_K: Defaults = {**_LINSPACE, **_SIGMAS}
_DDIM: Defaults = {**_LEADING, **_ZERO_SNR, **_CLIP, "set_alpha_to_one": True}
_DDPM: Defaults = {**_PROCESS, **_LEADING, **_ZERO_SNR, **_CLIP, **_THRESHOLD, "variance_type": "fixed_small"}
_COGVIDEOX: Defaults = {**_SCALED, **_DDIM, "sample_max_value": 1.0, "snr_shift_scale": 3.0}
_DISTILLED: Defaults = {
    **_SCALED,
    **_LEADING,
    **_ZERO_SNR,
    **_NO_CLIP,
    **_THRESHOLD,
    "set_alpha_to_one": True,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}
_DPM: Defaults = {
    **_PROCESS,
    **_THRESHOLD,
    **_SIGMAS,
    **_FLOW_SIGMAS,
    "solver_order": 2,
    "lower_order_final": True,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
}
_CLIPPED: Defaults = {"lambda_min_clipped": -float("inf"), "variance_type": None}
_FLOW_MATCH: Defaults = {
    **_SIGMAS,
    **_DYNAMIC,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
}
_EDM: Defaults = {
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
_EDM_SOLVER: Defaults = {
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
}

DEFAULTS: dict[str, Defaults] = {
    # whole times
    "DDIMScheduler": {**_PROCESS, **_DDIM, **_THRESHOLD},
    "DDIMParallelScheduler": {**_PROCESS, **_DDIM, **_THRESHOLD},
    "DDPMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "PNDMScheduler": {**_PROCESS, **_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False},
    "CogVideoXDDIMScheduler": _COGVIDEOX,
    "CogVideoXDPMScheduler": _COGVIDEOX,
    "UnCLIPScheduler": {
        "num_train_timesteps": 1000,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon",
        "variance_type": "fixed_small_log",
        **_CLIP,
    },
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    # fractional times
    "EulerDiscreteScheduler": {
        **_PROCESS,
        **_K,
        **_ZERO_SNR,
        "sigma_min": None,
        "sigma_max": None,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_PROCESS, **_LINSPACE, **_ZERO_SNR},
    "HeunDiscreteScheduler": {**_LATENT, **_K, **_NO_CLIP},
    "KDPM2DiscreteScheduler": {**_LATENT, **_K},
    "KDPM2AncestralDiscreteScheduler": {**_LATENT, **_K},
    "DPMSolverSDEScheduler": {**_LATENT, **_K, "noise_sampler_seed": None},
    "LMSDiscreteScheduler": {**_PROCESS, **_K},
    # times that leave out the first
    "DPMSolverMultistepScheduler": {
        **_DPM,
        **_LINSPACE,
        **_ZERO_SNR,
        **_CLIPPED,
        **_DYNAMIC,
        "use_lu_lambdas": False,
        "euler_at_final": False,
        "final_sigmas_type": "zero",
    },
    "DPMSolverSinglestepScheduler": {
        **_DPM,
        **_CLIPPED,
        **_DYNAMIC,
        "lower_order_final": False,
        "final_sigmas_type": "zero",
    },
    "DEISMultistepScheduler": {**_DPM, **_LINSPACE, **_DYNAMIC, "algorithm_type": "deis", "solver_type": "logrho"},
    "SASolverScheduler": {
        **{key: value for key, value in _DPM.items() if key not in ("solver_order", "solver_type")},
        **_LINSPACE,
        **_CLIPPED,
        "algorithm_type": "data_prediction",
        "predictor_order": 2,
        "corrector_order": 2,
        "tau_func": None,
    },
    "UniPCMultistepScheduler": {
        **{key: value for key, value in _DPM.items() if key != "algorithm_type"},
        **_LINSPACE,
        **_ZERO_SNR,
        **_DYNAMIC,
        "solver_type": "bh2",
        "predict_x0": True,
        "disable_corrector": [],
        "solver_p": None,
        "final_sigmas_type": "zero",
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    },
    # flow matching
    "FlowMatchEulerDiscreteScheduler": {**_FLOW_MATCH, "stochastic_sampling": False},
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
    "FlowMatchLCMScheduler": {**_FLOW_MATCH, "scale_factors": None, "upscale_mode": "bicubic"},
    "LTXEulerAncestralRFScheduler": {"num_train_timesteps": 1000, "eta": 1.0, "s_noise": 1.0},
    # EDM
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM,
        **_EDM_SOLVER,
        **_THRESHOLD,
        "algorithm_type": "dpmsolver++",
    },
    "CosineDPMSolverMultistepScheduler": {
        **_EDM,
        **_EDM_SOLVER,
        "prediction_type": "v_prediction",
        "sigma_min": 0.3,
        "sigma_max": 500,
        "sigma_data": 1.0,
        "sigma_schedule": "exponential",
    },
    # stochastic differential equations
    "ScoreSdeVeScheduler": {
        "num_train_timesteps": 2000,
        "snr": 0.15,
        "sigma_min": 0.01,
        "sigma_max": 1348.0,
        "sampling_eps": 1e-5,
        "correct_steps": 1,
    },
    "ScoreSdeVpScheduler": {"num_train_timesteps": 2000, "beta_min": 0.1, "beta_max": 20, "sampling_eps": 1e-3},
}

# What a sampler does with the process, the last step included: ours always ends at the estimate of clean data
SOLVER_KEYS = frozenset(
    {
        "algorithm_type",
        "correct_steps",
        "corrector_order",
        "disable_corrector",
        "eta",
        "euler_at_final",
        "final_sigmas_type",
        "lower_order_final",
        "noise_sampler_seed",
        "predict_x0",
        "predictor_order",
        "s_noise",
        "set_alpha_to_one",
        "skip_prk_steps",
        "snr",
        "solver_order",
        "solver_p",
        "solver_type",
        "stochastic_sampling",
        "tau_func",
        "timestep_scaling",
        "upscale_mode",
        "variance_type",
    }
)

# Keys that a class of diffusers takes and does not read when it samples
UNREAD_KEYS: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
        frozenset({"clip_sample", "clip_sample_range", "sample_max_value"}),
    ),
    "LCMScheduler": frozenset({"timestep_spacing", "steps_offset"}),
    "TCDScheduler": frozenset({"timestep_spacing", "steps_offset", *_NO_CLIP, *_THRESHOLD}),
    **dict.fromkeys(
        (
            "EDMEulerScheduler",
            "EDMDPMSolverMultistepScheduler",
            "CosineDPMSolverMultistepScheduler",
            "ScoreSdeVeScheduler",
            "ScoreSdeVpScheduler",
        ),
        frozenset({"num_train_timesteps"}),
    ),
}

# Say nothing while what they belong to is off: configurations list them for classes that do not know them
PARAMETER_KEYS = frozenset(
    {
        "base_image_seq_len",
        "base_shift",
        "clip_sample_range",
        "dynamic_thresholding_ratio",
        "flow_shift",
        "max_image_seq_len",
        "max_shift",
        "sample_max_value",
        "time_shift_type",
    }
)

REFUSED_CLASSES: dict[str, str] = {
    **dict.fromkeys(
        (
            "AmusedScheduler",
            "BlockRefinementScheduler",
            "DiscreteDDIMScheduler",
            "EntropyBoundScheduler",
            "VQDiffusionScheduler",
        ),
        "noises tokens, not Gaussian data",
    ),
    **dict.fromkeys(
        ("CMStochasticIterativeScheduler", "ConsistencyDecoderScheduler", "SCMScheduler"),
        "is for consistency models, whose network is not one of our predictors",
    ),
    **dict.fromkeys(
        ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"),
        "goes from data to noise; give the configuration of the scheduler that it inverts",
    ),
    "DDPMWuerstchenScheduler": "runs to times that depend on its own clamp of the signal",
    "FlowMapEulerDiscreteScheduler": "calls the network with two times",
    **dict.fromkeys(("HeliosScheduler", "HeliosDMDScheduler"), "changes the resolution between its stages"),
    "IPNDMScheduler": "has betas that depend on the number of steps",
    "KarrasVeScheduler": "calls the network at times of its own, half of the noise level",
    "MiniMaxH3Scheduler": "counts time from noise to data",
    "PiflowScheduler": "has a network that predicts a policy",
    "RePaintScheduler": "jumps back to more noise, which is no decreasing list of times",
    "RFD4ProteinaScheduler": "noises the rotations and translations of proteins",
}
