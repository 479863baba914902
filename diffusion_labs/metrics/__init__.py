"""Measures of models and images: likelihood; recognition, Frechet distance, diversity in a classifier's features."""

from diffusion_labs.metrics.classifier import (
    ImageClassifier,
    accuracy,
    extract_features,
    predict_classes,
    train_classifier,
)
from diffusion_labs.metrics.diversity import within_class_distance
from diffusion_labs.metrics.frechet import FeatureStatistics, frechet_distance
from diffusion_labs.metrics.inception_score import inception_score
from diffusion_labs.metrics.interval import Interval, jackknife
from diffusion_labs.metrics.kernel_distance import kernel_distance
from diffusion_labs.metrics.likelihood import HutchinsonTrace, bits_per_dimension, exact_trace, log_likelihood
from diffusion_labs.metrics.neighbours import Nearest, NeighbourMeasures, nearest, neighbour_measures

__all__ = [
    "FeatureStatistics",
    "HutchinsonTrace",
    "ImageClassifier",
    "Interval",
    "Nearest",
    "NeighbourMeasures",
    "accuracy",
    "bits_per_dimension",
    "exact_trace",
    "extract_features",
    "frechet_distance",
    "inception_score",
    "jackknife",
    "kernel_distance",
    "log_likelihood",
    "nearest",
    "neighbour_measures",
    "predict_classes",
    "train_classifier",
    "within_class_distance",
]
