"""Measures of models and images: likelihood; recognition, Frechet distance, diversity in a classifier's features."""

from diffusion_labs.metrics.classifier import (
    ImageClassifier,
    accuracy,
    extract_features,
    log_probabilities,
    predict_classes,
    train_classifier,
)
from diffusion_labs.metrics.clip_score import clip_score
from diffusion_labs.metrics.diversity import within_class_distance
from diffusion_labs.metrics.evaluation import Evaluation, Measured, evaluate
from diffusion_labs.metrics.extractors import (
    ClassifierFeatures,
    FeatureExtractor,
    TorchScriptFeatures,
    TransformersFeatures,
)
from diffusion_labs.metrics.frechet import FeatureStatistics, frechet_distance
from diffusion_labs.metrics.inception_score import inception_score
from diffusion_labs.metrics.interval import (
    Interval,
    bias_corrected,
    jackknife,
    jackknife_all,
    mean_interval,
    share_interval,
)
from diffusion_labs.metrics.kernel_distance import kernel_distance
from diffusion_labs.metrics.likelihood import HutchinsonTrace, bits_per_dimension, exact_trace, log_likelihood
from diffusion_labs.metrics.loss_per_level import LossPerLevel, loss_per_level
from diffusion_labs.metrics.neighbours import Nearest, NeighbourMeasures, copied_share, nearest, neighbour_measures
from diffusion_labs.metrics.processes import gather_features, merge_statistics

__all__ = [
    "ClassifierFeatures",
    "Evaluation",
    "FeatureExtractor",
    "FeatureStatistics",
    "HutchinsonTrace",
    "ImageClassifier",
    "Interval",
    "LossPerLevel",
    "Measured",
    "Nearest",
    "NeighbourMeasures",
    "TorchScriptFeatures",
    "TransformersFeatures",
    "accuracy",
    "bias_corrected",
    "bits_per_dimension",
    "clip_score",
    "copied_share",
    "evaluate",
    "exact_trace",
    "extract_features",
    "frechet_distance",
    "gather_features",
    "inception_score",
    "jackknife",
    "jackknife_all",
    "kernel_distance",
    "log_likelihood",
    "log_probabilities",
    "loss_per_level",
    "mean_interval",
    "merge_statistics",
    "nearest",
    "neighbour_measures",
    "predict_classes",
    "share_interval",
    "train_classifier",
    "within_class_distance",
]
