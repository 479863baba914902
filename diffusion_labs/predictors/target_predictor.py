"""Prediction of the clean data."""

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.schedules.noise_level import Coefficient


class TargetPredictor(Predictor):
    """The network predicts the clean data: ``y = x0`` (DALL-E 2's prior, arXiv 2204.06125, Eq. 2)."""

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """(1, 0)."""
        return 1.0, 0.0
