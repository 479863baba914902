"""Measures of generated images: recognition, Frechet distance and diversity in a classifier's features."""

from diffusion_labs.metrics.classifier import (
    ImageClassifier,
    accuracy,
    extract_features,
    predict_classes,
    train_classifier,
)
from diffusion_labs.metrics.diversity import within_class_distance
from diffusion_labs.metrics.frechet import FeatureStatistics, frechet_distance

__all__ = [
    "FeatureStatistics",
    "ImageClassifier",
    "accuracy",
    "extract_features",
    "frechet_distance",
    "predict_classes",
    "train_classifier",
    "within_class_distance",
]
