# The public API, one line a component. Names are imported when they are first used.

# Models: networks, and whole systems
# What the parts have in common
from .adapters.adapter import Adapter as Adapter

# Adapters
from .adapters.cfguidance import CFGuidance as CFGuidance
from .adapters.inpainting import InPainting as InPainting
from .adapters.patchify import Patchify as Patchify
from .adapters.super_resolution import SuperResolution as SuperResolution
from .conditioning import ConditionalModule as ConditionalModule

# Data
from .data import Batches as Batches
from .data import Digits as Digits
from .data import IDXImages as IDXImages
from .data import ImageFolder as ImageFolder

# Random numbers and pictures
from .images import image_grid as image_grid
from .images import save_image as save_image

# Losses, and weightings by noise level
from .losses.diffusion_hybrid_loss import DiffusionHybridLoss as DiffusionHybridLoss
from .losses.simple_loss import SimpleLoss as SimpleLoss
from .losses.vlb_loss import VLBLoss as VLBLoss
from .losses.weighting import EDM as EDM
from .losses.weighting import P2 as P2
from .losses.weighting import SNR as SNR
from .losses.weighting import MinSNR as MinSNR
from .losses.weighting import Uniform as Uniform
from .models.adm_unet import ADMUNet as ADMUNet
from .models.adm_unet import adm_unet as adm_unet
from .models.ideal import IdealDenoiser as IdealDenoiser
from .output import DiffusionOutput as DiffusionOutput
from .predictors.clamp import DynamicThreshold as DynamicThreshold
from .predictors.clamp import StaticClamp as StaticClamp

# Predictors
from .predictors.noise_predictor import NoisePredictor as NoisePredictor
from .predictors.predictor import Predictor as Predictor
from .predictors.target_predictor import TargetPredictor as TargetPredictor
from .predictors.v_predictor import VPredictor as VPredictor
from .randomness import randn as randn
from .randomness import seeded as seeded

# Samplers, and their grids of times
from .samplers.ddim import DDIMSampler as DDIMSampler
from .samplers.ddpm import DDPMSampler as DDPMSampler
from .samplers.grids import all_steps as all_steps
from .samplers.grids import leading as leading
from .samplers.grids import linspace as linspace
from .samplers.grids import trailing as trailing
from .samplers.sampler import Sampler as Sampler
from .schedules.betas import cosine_beta_schedule as cosine_beta_schedule
from .schedules.betas import linear_beta_schedule as linear_beta_schedule
from .schedules.betas import quadratic_beta_schedule as quadratic_beta_schedule
from .schedules.betas import rescale_zero_terminal_snr as rescale_zero_terminal_snr
from .schedules.betas import scaled_linear_beta_schedule as scaled_linear_beta_schedule
from .schedules.betas import sigmoid_beta_schedule as sigmoid_beta_schedule

# Schedules
from .schedules.discrete_gaussian_schedule import DiscreteGaussianSchedule as DiscreteGaussianSchedule
from .schedules.schedule import Schedule as Schedule

# Training
from .training.ema import EMA as EMA
from .training.experiment import Experiment as Experiment
from .training.loop import train as train
from .training.objective import Objective as Objective

# Transforms
from .transforms.diffusion_steps import ComputeTarget as ComputeTarget
from .transforms.diffusion_steps import ComputeV as ComputeV
from .transforms.diffusion_steps import RandomDiffusionSteps as RandomDiffusionSteps
from .transforms.normalize_images import NormalizeImages as NormalizeImages
from .transforms.random_inpainting_mask import RandomInpaintingMask as RandomInpaintingMask
from .transforms.super_resolution_transform import SuperResolutionTransform as SuperResolutionTransform
from .transforms.transform import Transform as Transform
