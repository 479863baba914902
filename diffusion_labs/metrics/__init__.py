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
from diffusion_labs.metrics.likelihood import HutchinsonTrace, bits_per_dimension, exact_trace, log_likelihood

__all__ = [
    "FeatureStatistics",
    "HutchinsonTrace",
    "ImageClassifier",
    "accuracy",
    "bits_per_dimension",
    "exact_trace",
    "extract_features",
    "frechet_distance",
    "log_likelihood",
    "predict_classes",
    "train_classifier",
    "within_class_distance",
]
