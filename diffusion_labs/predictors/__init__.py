"""Predictors: what the network is trained to output, and the way back to clean data."""

from diffusion_labs.predictors.clamp import DynamicThreshold, FixedNorm, StaticClamp
from diffusion_labs.predictors.edm_predictor import EDMPredictor
from diffusion_labs.predictors.flow_predictor import FlowPredictor
from diffusion_labs.predictors.noise_predictor import NoisePredictor
from diffusion_labs.predictors.predictor import Denoised, Predictor
from diffusion_labs.predictors.score_predictor import ScorePredictor
from diffusion_labs.predictors.target_predictor import TargetPredictor
from diffusion_labs.predictors.v_predictor import VPredictor

__all__ = [
    "Denoised",
    "DynamicThreshold",
    "EDMPredictor",
    "FixedNorm",
    "FlowPredictor",
    "NoisePredictor",
    "Predictor",
    "ScorePredictor",
    "StaticClamp",
    "TargetPredictor",
    "VPredictor",
]
