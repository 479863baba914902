# The public API, one line a component. Names are imported when they are first used.

# Models: networks, and whole systems
from .models.adm_unet import ADMUNet as ADMUNet
from .models.adm_unet import adm_unet as adm_unet
from .models.adm_unet import levels_of_factors as levels_of_factors
from .models.ideal import IdealDenoiser as IdealDenoiser

# Adapters
from .adapters.adapter import Adapter as Adapter
from .adapters.cfguidance import CFGuidance as CFGuidance
from .adapters.classifier_guidance import ClassifierGuidance as ClassifierGuidance
from .adapters.edm_preconditioning import EDMPreconditioning as EDMPreconditioning
from .adapters.inpainting import InPainting as InPainting
from .adapters.known_region import KnownRegion as KnownRegion
from .adapters.linear_posterior import LinearPosterior as LinearPosterior
from .adapters.patchify import Patchify as Patchify
from .adapters.super_resolution import SuperResolution as SuperResolution

# Predictors, and bounds on the clean data
from .predictors.predictor import Predictor as Predictor
from .predictors.noise_predictor import NoisePredictor as NoisePredictor
from .predictors.target_predictor import TargetPredictor as TargetPredictor
from .predictors.v_predictor import VPredictor as VPredictor
from .predictors.flow_predictor import FlowPredictor as FlowPredictor
from .predictors.score_predictor import ScorePredictor as ScorePredictor
from .predictors.edm_predictor import EDMPredictor as EDMPredictor
from .predictors.clamp import DynamicThreshold as DynamicThreshold
from .predictors.clamp import StaticClamp as StaticClamp

# Schedules
from .schedules.schedule import Schedule as Schedule
from .schedules.schedule import ContinuousSchedule as ContinuousSchedule
from .schedules.noise_level import NoiseLevel as NoiseLevel
from .schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule as DiscreteGaussianSchedule
from .schedules.betas import cosine_beta_schedule as cosine_beta_schedule
from .schedules.betas import linear_beta_schedule as linear_beta_schedule
from .schedules.betas import quadratic_beta_schedule as quadratic_beta_schedule
from .schedules.betas import rescale_zero_terminal_snr as rescale_zero_terminal_snr
from .schedules.betas import scaled_linear_beta_schedule as scaled_linear_beta_schedule
from .schedules.betas import sigmoid_beta_schedule as sigmoid_beta_schedule
from .schedules.log_snr_schedule import CosineSchedule as CosineSchedule
from .schedules.log_snr_schedule import LaplaceSchedule as LaplaceSchedule
from .schedules.rectified_flow_schedule import RectifiedFlowSchedule as RectifiedFlowSchedule
from .schedules.variance_exploding_schedule import EDMSchedule as EDMSchedule
from .schedules.variance_exploding_schedule import VarianceExplodingSchedule as VarianceExplodingSchedule
from .schedules.variance_preserving_schedule import VariancePreservingSchedule as VariancePreservingSchedule

# Samplers, and their grids of times
from .samplers.sampler import Sampler as Sampler
from .samplers.ddim import DDIMSampler as DDIMSampler
from .samplers.ddpm import DDPMSampler as DDPMSampler
from .samplers.deis import DEISSampler as DEISSampler
from .samplers.dpm2 import DPM2Sampler as DPM2Sampler
from .samplers.dpm_solver_pp_2m import DPMSolverPP2MSampler as DPMSolverPP2MSampler
from .samplers.dpm_solver_pp_2s import DPMSolverPP2SSampler as DPMSolverPP2SSampler
from .samplers.dpm_solver_pp_3m import DPMSolverPP3MSampler as DPMSolverPP3MSampler
from .samplers.euler import EulerSampler as EulerSampler
from .samplers.heun import HeunSampler as HeunSampler
from .samplers.unipc import UniPCSampler as UniPCSampler
from .samplers.lms import LMSSampler as LMSSampler
from .samplers.euler_ancestral import EulerAncestralSampler as EulerAncestralSampler
from .samplers.dpm_solver_pp_sde_2m import DPMSolverPPSDE2MSampler as DPMSolverPPSDE2MSampler
from .samplers.edm_stochastic import EDMStochasticSampler as EDMStochasticSampler
from .samplers.dpm2_ancestral import DPM2AncestralSampler as DPM2AncestralSampler
from .samplers.repaint import RePaintSampler as RePaintSampler
from .samplers.brownian import BrownianNoise as BrownianNoise
from .samplers.multistep import MultistepSampler as MultistepSampler
from .samplers.grids import all_steps as all_steps
from .samplers.grids import karras as karras
from .samplers.grids import leading as leading
from .samplers.grids import linspace as linspace
from .samplers.grids import trailing as trailing
from .samplers.grids import uniform_log_snr as uniform_log_snr

# Transforms
from .transforms.transform import Transform as Transform
from .transforms.diffusion_steps import ComputeTarget as ComputeTarget
from .transforms.diffusion_steps import ComputeV as ComputeV
from .transforms.diffusion_steps import RandomDiffusionSteps as RandomDiffusionSteps
from .transforms.normalize_images import NormalizeImages as NormalizeImages
from .transforms.random_inpainting_mask import RandomInpaintingMask as RandomInpaintingMask
from .transforms.super_resolution_transform import SuperResolutionTransform as SuperResolutionTransform

# Losses, and weightings by noise level
from .losses.diffusion_hybrid_loss import DiffusionHybridLoss as DiffusionHybridLoss
from .losses.simple_loss import SimpleLoss as SimpleLoss
from .losses.vlb_loss import VLBLoss as VLBLoss
from .losses.vlb_loss import discretized_gaussian_nll as discretized_gaussian_nll
from .losses.vlb_loss import gaussian_nll as gaussian_nll
from .losses.weighting import EDM as EDM
from .losses.weighting import MinSNR as MinSNR
from .losses.weighting import P2 as P2
from .losses.weighting import SNR as SNR
from .losses.weighting import Uniform as Uniform

# Training
from .training import EMA as EMA
from .training import CheckpointError as CheckpointError
from .training import Experiment as Experiment
from .training import Objective as Objective
from .training import TrainOptions as TrainOptions
from .training import WarmupCosine as WarmupCosine
from .training import train as train

# Data
from .data import Batches as Batches
from .data import DataError as DataError
from .data import Digits as Digits
from .data import IDXImages as IDXImages
from .data import ImageFolder as ImageFolder

# What networks and adapters have in common
from .conditioning import ConditionalModule as ConditionalModule
from .output import DiffusionOutput as DiffusionOutput

# Random numbers and pictures
from .images import image_grid as image_grid
from .images import save_image as save_image
from .randomness import randn as randn
from .randomness import seeded as seeded
