"""Samplers: wrap the model; one call of it in train mode, the whole schedule in eval mode."""

from diffusion_labs.samplers.adams import AdamsSampler
from diffusion_labs.samplers.adaptive import AdaptiveSampler
from diffusion_labs.samplers.align_your_steps import (
    AYS_STABLE_DIFFUSION,
    AYS_STABLE_DIFFUSION_XL,
    AYS_STABLE_VIDEO_DIFFUSION,
    align_your_steps,
)
from diffusion_labs.samplers.beta_grid import beta
from diffusion_labs.samplers.brownian import BrownianNoise
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.deis import DEISSampler
from diffusion_labs.samplers.distilled_grid import distilled
from diffusion_labs.samplers.dpm2 import DPM2Sampler
from diffusion_labs.samplers.dpm2_ancestral import DPM2AncestralSampler
from diffusion_labs.samplers.dpm_solver_2m import DPMSolver2MSampler
from diffusion_labs.samplers.dpm_solver_3 import DPMSolver3Sampler
from diffusion_labs.samplers.dpm_solver_3m import DPMSolver3MSampler
from diffusion_labs.samplers.dpm_solver_pp_2m import DPMSolverPP2MSampler
from diffusion_labs.samplers.dpm_solver_pp_2s import DPMSolverPP2SSampler
from diffusion_labs.samplers.dpm_solver_pp_3m import DPMSolverPP3MSampler
from diffusion_labs.samplers.dpm_solver_pp_3s import DPMSolverPP3SSampler
from diffusion_labs.samplers.dpm_solver_pp_sde_2m import DPMSolverPPSDE2MSampler
from diffusion_labs.samplers.dpm_solver_pp_sde_3m import DPMSolverPPSDE3MSampler
from diffusion_labs.samplers.edm_stochastic import EDMStochasticSampler
from diffusion_labs.samplers.euler import EulerSampler
from diffusion_labs.samplers.euler_ancestral import EulerAncestralSampler
from diffusion_labs.samplers.euler_maruyama import EulerMaruyamaSampler
from diffusion_labs.samplers.fitted import FittedSampler
from diffusion_labs.samplers.flow_adams import FlowAdamsSampler
from diffusion_labs.samplers.grids import (
    all_steps,
    at_times,
    exponential,
    karras,
    karras_flow,
    leading,
    linspace,
    trailing,
    uniform_log_snr,
)
from diffusion_labs.samplers.heun import HeunSampler
from diffusion_labs.samplers.inversion import invert
from diffusion_labs.samplers.ipndm import IPNDMSampler
from diffusion_labs.samplers.lcm import LCMSampler
from diffusion_labs.samplers.lint import Finding, lint
from diffusion_labs.samplers.lms import LMSSampler
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.plms import PLMSSampler
from diffusion_labs.samplers.pndm import PNDMSampler
from diffusion_labs.samplers.predictor_corrector import PredictorCorrectorSampler
from diffusion_labs.samplers.repaint import RePaintSampler
from diffusion_labs.samplers.restart import Restart, RestartSampler
from diffusion_labs.samplers.sa_solver import SASolverSampler
from diffusion_labs.samplers.sampler import Estimate, NoiseSource, Sampler
from diffusion_labs.samplers.tcd import TCDSampler
from diffusion_labs.samplers.unipc import UniPCSampler

__all__ = [
    "DDIMSampler",
    "DDPMSampler",
    "DPMSolverPP2MSampler",
    "DPMSolverPP2SSampler",
    "DPMSolverPP3MSampler",
    "EulerSampler",
    "HeunSampler",
    "UniPCSampler",
    "DEISSampler",
    "DPM2Sampler",
    "LMSSampler",
    "DPMSolver2MSampler",
    "DPMSolver3MSampler",
    "DPMSolver3Sampler",
    "DPMSolverPP3SSampler",
    "IPNDMSampler",
    "PLMSSampler",
    "PNDMSampler",
    "EulerAncestralSampler",
    "DPMSolverPPSDE2MSampler",
    "EDMStochasticSampler",
    "DPM2AncestralSampler",
    "AdamsSampler",
    "FittedSampler",
    "FlowAdamsSampler",
    "AdaptiveSampler",
    "DPMSolverPPSDE3MSampler",
    "SASolverSampler",
    "RestartSampler",
    "EulerMaruyamaSampler",
    "PredictorCorrectorSampler",
    "LCMSampler",
    "TCDSampler",
    "RePaintSampler",
    "BrownianNoise",
    "Estimate",
    "MultistepSampler",
    "NoiseSource",
    "AYS_STABLE_DIFFUSION",
    "AYS_STABLE_DIFFUSION_XL",
    "AYS_STABLE_VIDEO_DIFFUSION",
    "Finding",
    "Restart",
    "Sampler",
    "align_your_steps",
    "all_steps",
    "invert",
    "at_times",
    "beta",
    "exponential",
    "distilled",
    "karras",
    "karras_flow",
    "leading",
    "linspace",
    "lint",
    "trailing",
    "uniform_log_snr",
]
