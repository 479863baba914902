"""Prediction of the noise."""

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.schedules.noise_level import Coefficient


class NoisePredictor(Predictor):
    """The network predicts the noise: ``y = noise`` (DDPM, arXiv 2006.11239, Eq. 12)."""

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """(0, 1)."""
        return 0.0, 1.0
