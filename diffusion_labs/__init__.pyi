# The public API, one line a component. Names are imported when they are first used.

# Models: networks, and whole systems
from .models.adm_unet import ADMUNet as ADMUNet
from .models.adm_unet import adm_unet as adm_unet
from .models.adm_unet import ADM_CLASSIFIERS as ADM_CLASSIFIERS
from .models.adm_unet import ADM_UNETS as ADM_UNETS
from .models.adm_unet import ADMClassifier as ADMClassifier
from .models.adm_unet import adm_classifier as adm_classifier
from .models.adm_unet import levels_of_factors as levels_of_factors
from .models.ldm import LDM_UNETS as LDM_UNETS
from .models.ldm import ldm_unet as ldm_unet
from .models.ldm import LatentAutoencoder as LatentAutoencoder
from .models.ldm import LatentDiffusion as LatentDiffusion
from .models.ldm import LatentScale as LatentScale
from .models.ldm import ldm_celebahq as ldm_celebahq
from .models.ldm import ldm_imagenet as ldm_imagenet
from .models.ldm import ldm_imagenet_f8 as ldm_imagenet_f8
from .models.ldm import ldm_inpainting as ldm_inpainting
from .models.ldm import ldm_layout as ldm_layout
from .models.ldm import ldm_lsun_churches as ldm_lsun_churches
from .models.ldm import ldm_semantic_synthesis as ldm_semantic_synthesis
from .models.ldm import ldm_super_resolution as ldm_super_resolution
from .models.ldm import ldm_text2img256 as ldm_text2img256
from .models.ldm import ldm_text2img_large as ldm_text2img_large
from .models.ldm import stable_diffusion_1 as stable_diffusion_1
from .models.ldm import stable_diffusion_1_inpainting as stable_diffusion_1_inpainting
from .models.ldm import stable_diffusion_2 as stable_diffusion_2
from .models.encoders import ByteTextEncoder as ByteTextEncoder
from .models.encoders import CachedTextEncoder as CachedTextEncoder
from .models.encoders import ClassEmbedding as ClassEmbedding
from .models.encoders import CLIPTextEncoder as CLIPTextEncoder
from .models.encoders import Conditioner as Conditioner
from .models.encoders import PretrainedTextEncoder as PretrainedTextEncoder
from .models.encoders import SentenceEncoder as SentenceEncoder
from .models.encoders import SpatialRescaler as SpatialRescaler
from .models.encoders import T5TextEncoder as T5TextEncoder
from .models.encoders import TextEncoder as TextEncoder
from .models.encoders import encode_distinct as encode_distinct
from .models.transformer import DITS as DITS
from .models.transformer import DiT as DiT
from .models.transformer import dit as dit
from .models.transformer import MMDITS as MMDITS
from .models.transformer import MMDiT as MMDiT
from .models.transformer import mmdit as mmdit
from .models.transformer import UVITS as UVITS
from .models.transformer import UViT as UViT
from .models.transformer import uvit as uvit
from .models.transformer import PIXARTS as PIXARTS
from .models.transformer import PixArt as PixArt
from .models.transformer import pixart as pixart
from .models.encoders import last_states as last_states
from .models.encoders import normalised_penultimate_states as normalised_penultimate_states
from .models.encoders import penultimate_states as penultimate_states
from .models.ideal import IdealDenoiser as IdealDenoiser
from .models.autoencoder import AutoencoderKL as AutoencoderKL
from .models.autoencoder import VQModel as VQModel
from .models.autoencoder import VectorQuantizer as VectorQuantizer
from .models.autoencoder import DiagonalGaussian as DiagonalGaussian
from .models.autoencoder import PatchDiscriminator as PatchDiscriminator
from .models.autoencoder import autoencoder_kl as autoencoder_kl
from .models.autoencoder import vq_model as vq_model
from .models.autoencoder import code_usage as code_usage
from .models.autoencoder import tiled as tiled
from .models.autoencoder import kl_f4 as kl_f4
from .models.autoencoder import kl_f8 as kl_f8
from .models.autoencoder import kl_f16 as kl_f16
from .models.autoencoder import kl_f32 as kl_f32
from .models.autoencoder import vq_f4 as vq_f4
from .models.autoencoder import vq_f4_noattn as vq_f4_noattn
from .models.autoencoder import vq_f8 as vq_f8
from .models.autoencoder import vq_f8_n256 as vq_f8_n256
from .models.autoencoder import vq_f16 as vq_f16

# Adapters
from .adapters.adapter import Adapter as Adapter
from .adapters.cfguidance import CFGuidance as CFGuidance
from .adapters.cfguidance_plus_plus import CFGuidancePlusPlus as CFGuidancePlusPlus
from .adapters.autoguidance import AutoGuidance as AutoGuidance
from .adapters.perturbed_attention_guidance import PerturbedAttentionGuidance as PerturbedAttentionGuidance
from .adapters.combinations import AdaptiveProjectedGuidance as AdaptiveProjectedGuidance
from .adapters.combinations import GuidanceRescale as GuidanceRescale
from .adapters.guidance_interval import GuidanceInterval as GuidanceInterval
from .adapters.classifier_guidance import ClassifierGuidance as ClassifierGuidance
from .adapters.concatenation import Concatenation as Concatenation
from .adapters.edm_preconditioning import EDMPreconditioning as EDMPreconditioning
from .adapters.inpainting import InPainting as InPainting
from .adapters.inpainting import image_then_mask as image_then_mask
from .adapters.inpainting import mask_then_image as mask_then_image
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
from .schedules.density_schedule import DensitySchedule as DensitySchedule
from .schedules.density_schedule import LaplaceSchedule as LaplaceSchedule
from .schedules.rectified_flow_schedule import RectifiedFlowSchedule as RectifiedFlowSchedule
from .schedules.variance_exploding_schedule import EDMSchedule as EDMSchedule
from .schedules.variance_exploding_schedule import VarianceExplodingSchedule as VarianceExplodingSchedule
from .schedules.variance_preserving_schedule import VariancePreservingSchedule as VariancePreservingSchedule
from .schedules.time_maps import CosineTimeMap as CosineTimeMap
from .schedules.time_maps import LinearTimeMap as LinearTimeMap
from .schedules.time_maps import LogitNormalTimeMap as LogitNormalTimeMap

# Densities: how often each noise level is trained
from .schedules.density import Density as Density
from .schedules.density import UniformTime as UniformTime
from .schedules.log_snr_density import LogSNRDensity as LogSNRDensity
from .schedules.log_snr_density import CauchyLogSNR as CauchyLogSNR
from .schedules.log_snr_density import LaplaceLogSNR as LaplaceLogSNR
from .schedules.log_snr_density import LogisticLogSNR as LogisticLogSNR
from .schedules.log_snr_density import ModeLogSNR as ModeLogSNR
from .schedules.log_snr_density import NormalLogSNR as NormalLogSNR
from .schedules.log_snr_density import SechLogSNR as SechLogSNR
from .schedules.log_snr_density import UniformLogSNR as UniformLogSNR
from .schedules.adaptive_density import AdaptiveLogSNR as AdaptiveLogSNR
from .schedules.adaptive_density import LossSecondMoment as LossSecondMoment
from .randomness import independent_uniform as independent_uniform
from .randomness import stratified_uniform as stratified_uniform

# Samplers, and their grids of times
from .samplers.sampler import Sampler as Sampler
from .samplers.adams import AdamsSampler as AdamsSampler
from .samplers.adaptive import AdaptiveSampler as AdaptiveSampler
from .samplers.ddim import DDIMSampler as DDIMSampler
from .samplers.ddpm import DDPMSampler as DDPMSampler
from .samplers.deis import DEISSampler as DEISSampler
from .samplers.dpm2 import DPM2Sampler as DPM2Sampler
from .samplers.dpm_solver_pp_2m import DPMSolverPP2MSampler as DPMSolverPP2MSampler
from .samplers.dpm_solver_pp_2s import DPMSolverPP2SSampler as DPMSolverPP2SSampler
from .samplers.dpm_solver_pp_3m import DPMSolverPP3MSampler as DPMSolverPP3MSampler
from .samplers.euler import EulerSampler as EulerSampler
from .samplers.flow_adams import FlowAdamsSampler as FlowAdamsSampler
from .samplers.heun import HeunSampler as HeunSampler
from .samplers.unipc import UniPCSampler as UniPCSampler
from .samplers.lms import LMSSampler as LMSSampler
from .samplers.dpm_solver_2m import DPMSolver2MSampler as DPMSolver2MSampler
from .samplers.dpm_solver_3m import DPMSolver3MSampler as DPMSolver3MSampler
from .samplers.dpm_solver_3 import DPMSolver3Sampler as DPMSolver3Sampler
from .samplers.dpm_solver_pp_3s import DPMSolverPP3SSampler as DPMSolverPP3SSampler
from .samplers.ipndm import IPNDMSampler as IPNDMSampler
from .samplers.plms import PLMSSampler as PLMSSampler
from .samplers.pndm import PNDMSampler as PNDMSampler
from .samplers.euler_ancestral import EulerAncestralSampler as EulerAncestralSampler
from .samplers.dpm_solver_pp_sde_2m import DPMSolverPPSDE2MSampler as DPMSolverPPSDE2MSampler
from .samplers.edm_stochastic import EDMStochasticSampler as EDMStochasticSampler
from .samplers.dpm2_ancestral import DPM2AncestralSampler as DPM2AncestralSampler
from .samplers.inversion import invert as invert
from .samplers.repaint import RePaintSampler as RePaintSampler
from .samplers.brownian import BrownianNoise as BrownianNoise
from .samplers.multistep import MultistepSampler as MultistepSampler
from .samplers.align_your_steps import AYS_STABLE_DIFFUSION as AYS_STABLE_DIFFUSION
from .samplers.align_your_steps import AYS_STABLE_DIFFUSION_XL as AYS_STABLE_DIFFUSION_XL
from .samplers.align_your_steps import AYS_STABLE_VIDEO_DIFFUSION as AYS_STABLE_VIDEO_DIFFUSION
from .samplers.align_your_steps import align_your_steps as align_your_steps
from .samplers.beta_grid import beta as beta
from .samplers.dpm_solver_pp_sde_3m import DPMSolverPPSDE3MSampler as DPMSolverPPSDE3MSampler
from .samplers.sa_solver import SASolverSampler as SASolverSampler
from .samplers.restart import Restart as Restart
from .samplers.restart import RestartSampler as RestartSampler
from .samplers.euler_maruyama import EulerMaruyamaSampler as EulerMaruyamaSampler
from .samplers.predictor_corrector import PredictorCorrectorSampler as PredictorCorrectorSampler
from .samplers.lcm import LCMSampler as LCMSampler
from .samplers.tcd import TCDSampler as TCDSampler
from .samplers.distilled_grid import distilled as distilled
from .samplers.grids import all_steps as all_steps
from .samplers.grids import at_times as at_times
from .samplers.grids import exponential as exponential
from .samplers.grids import karras as karras
from .samplers.grids import karras_flow as karras_flow
from .samplers.grids import leading as leading
from .samplers.grids import linspace as linspace
from .samplers.grids import trailing as trailing
from .samplers.grids import uniform_log_snr as uniform_log_snr

# What is wrong with a choice of these
from .samplers.lint import Finding as Finding
from .samplers.lint import lint as lint

# Transforms
from .transforms.transform import Transform as Transform
from .transforms.diffusion_steps import ComputeTarget as ComputeTarget
from .transforms.diffusion_steps import ComputeV as ComputeV
from .transforms.diffusion_steps import RandomDiffusionSteps as RandomDiffusionSteps
from .models.ldm import EncodeLatents as EncodeLatents
from .transforms.normalize_images import NormalizeImages as NormalizeImages
from .transforms.random_inpainting_mask import RandomInpaintingMask as RandomInpaintingMask
from .transforms.super_resolution_transform import SuperResolutionTransform as SuperResolutionTransform

# Losses, and weightings by noise level
from .losses.diffusion_hybrid_loss import DiffusionHybridLoss as DiffusionHybridLoss
from .losses.importance_mean import ImportanceMean as ImportanceMean
from .losses.feature_loss import FeatureLoss as FeatureLoss
from .losses.feature_loss import PerceptualLoss as PerceptualLoss
from .losses.lpips import LPIPS as LPIPS
from .losses.simple_loss import SimpleLoss as SimpleLoss
from .losses.vlb_loss import VLBLoss as VLBLoss
from .losses.vlb_loss import discretized_gaussian_nll as discretized_gaussian_nll
from .losses.vlb_loss import gaussian_nll as gaussian_nll
from .losses.weighting import EDM as EDM
from .losses.weighting import MinSNR as MinSNR
from .losses.weighting import P2 as P2
from .losses.weighting import SNR as SNR
from .losses.weighting import Sigmoid as Sigmoid
from .losses.weighting import Uniform as Uniform

# Training
from .training import EMA as EMA
from .training import AutoencoderObjective as AutoencoderObjective
from .training import BaseObjective as BaseObjective
from .training import CheckpointError as CheckpointError
from .training import Experiment as Experiment
from .training import KLObjective as KLObjective
from .training import VQObjective as VQObjective
from .training import absolute_error as absolute_error
from .training import squared_error as squared_error
from .training import Objective as Objective
from .training import TrainOptions as TrainOptions
from .training import WarmupCosine as WarmupCosine
from .training import train as train

# Evaluation
from .metrics.likelihood import HutchinsonTrace as HutchinsonTrace
from .metrics.likelihood import bits_per_dimension as bits_per_dimension
from .metrics.likelihood import exact_trace as exact_trace
from .metrics.likelihood import log_likelihood as log_likelihood

# Data
from .data import Batches as Batches
from .data import DataError as DataError
from .data import Digits as Digits
from .data import EncodedDataset as EncodedDataset
from .data import IDXImages as IDXImages
from .data import ImageFolder as ImageFolder
from .data import TarImages as TarImages
from .data import encode_dataset as encode_dataset

# The own format
from .pretrained import from_pretrained as from_pretrained
from .pretrained import push_to_hub as push_to_hub
from .pretrained import save_pretrained as save_pretrained

# Formats of other libraries
from .interop import from_diffusers_config as from_diffusers_config
from .interop import load_compvis_autoencoder as load_compvis_autoencoder
from .interop import load_diffusers_autoencoder as load_diffusers_autoencoder
from .interop import save_diffusers_autoencoder as save_diffusers_autoencoder
from .interop import to_compvis_autoencoder as to_compvis_autoencoder
from .interop import from_diffusers_unet_config as from_diffusers_unet_config
from .interop import load_compvis_unet as load_compvis_unet
from .interop import load_diffusers_unet as load_diffusers_unet
from .interop import load_lpips as load_lpips
from .interop import to_lpips as to_lpips
from .interop import save_diffusers_unet as save_diffusers_unet
from .interop import to_compvis_unet as to_compvis_unet
from .interop import to_diffusers_unet as to_diffusers_unet
from .interop import load_compvis_checkpoint as load_compvis_checkpoint
from .interop import read_compvis_checkpoint as read_compvis_checkpoint
from .interop import to_compvis_checkpoint as to_compvis_checkpoint
from .interop import from_diffusers_dit_config as from_diffusers_dit_config
from .interop import load_diffusers_dit as load_diffusers_dit
from .interop import save_diffusers_dit as save_diffusers_dit
from .interop import from_diffusers_mmdit_config as from_diffusers_mmdit_config
from .interop import load_diffusers_mmdit as load_diffusers_mmdit
from .interop import save_diffusers_mmdit as save_diffusers_mmdit
from .interop import from_diffusers_pixart_config as from_diffusers_pixart_config
from .interop import load_diffusers_pixart as load_diffusers_pixart
from .interop import save_diffusers_pixart as save_diffusers_pixart
from .interop import load_dit as load_dit
from .interop import load_torchmultimodal_autoencoder as load_torchmultimodal_autoencoder
from .interop import load_torchmultimodal_unet as load_torchmultimodal_unet
from .interop import to_torchmultimodal_autoencoder as to_torchmultimodal_autoencoder
from .interop import to_torchmultimodal_unet as to_torchmultimodal_unet
from .interop import load_guided_diffusion as load_guided_diffusion
from .interop import to_guided_diffusion as to_guided_diffusion
from .interop import to_dit as to_dit
from .interop import to_diffusers_config as to_diffusers_config
from .interop import load_diffusers_pipeline as load_diffusers_pipeline
from .interop import save_diffusers_pipeline as save_diffusers_pipeline

# What networks and adapters have in common
from .conditioning import ConditionalModule as ConditionalModule
from .output import DiffusionOutput as DiffusionOutput

# Random numbers and pictures
from .images import image_grid as image_grid
from .images import save_image as save_image
from .randomness import randn as randn
from .randomness import seeded as seeded
