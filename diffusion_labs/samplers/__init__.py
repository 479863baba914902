"""Samplers: wrap the model; one call of it in train mode, the whole schedule in eval mode."""

from diffusion_labs.samplers.brownian import BrownianNoise
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.deis import DEISSampler
from diffusion_labs.samplers.dpm2 import DPM2Sampler
from diffusion_labs.samplers.dpm2_ancestral import DPM2AncestralSampler
from diffusion_labs.samplers.dpm_solver_pp_2m import DPMSolverPP2MSampler
from diffusion_labs.samplers.dpm_solver_pp_2s import DPMSolverPP2SSampler
from diffusion_labs.samplers.dpm_solver_pp_3m import DPMSolverPP3MSampler
from diffusion_labs.samplers.dpm_solver_pp_sde_2m import DPMSolverPPSDE2MSampler
from diffusion_labs.samplers.edm_stochastic import EDMStochasticSampler
from diffusion_labs.samplers.euler import EulerSampler
from diffusion_labs.samplers.euler_ancestral import EulerAncestralSampler
from diffusion_labs.samplers.grids import all_steps, karras, leading, linspace, trailing, uniform_log_snr
from diffusion_labs.samplers.heun import HeunSampler
from diffusion_labs.samplers.lms import LMSSampler
from diffusion_labs.samplers.multistep import MultistepSampler
from diffusion_labs.samplers.repaint import RePaintSampler
from diffusion_labs.samplers.sampler import Estimate, NoiseSource, Sampler
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
    "EulerAncestralSampler",
    "DPMSolverPPSDE2MSampler",
    "EDMStochasticSampler",
    "DPM2AncestralSampler",
    "RePaintSampler",
    "BrownianNoise",
    "Estimate",
    "MultistepSampler",
    "NoiseSource",
    "Sampler",
    "all_steps",
    "karras",
    "leading",
    "linspace",
    "trailing",
    "uniform_log_snr",
]
