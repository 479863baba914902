"""Prediction of the score."""

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.schedules.noise_level import Coefficient


class ScorePredictor(Predictor):
    """The network predicts ``-noise / sigma``, in mean the gradient of log p(x_t) (arXiv 2011.13456, Eq. 7)."""

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """(0, -1 / sigma)."""
        return 0.0, -1 / sigma
