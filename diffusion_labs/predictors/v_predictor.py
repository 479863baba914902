"""Prediction of v."""

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.schedules.noise_level import Coefficient


class VPredictor(Predictor):
    """The network predicts ``v = alpha * noise - sigma * x0`` (arXiv 2202.00512, App. D).

    It is well defined at every noise level, zero terminal SNR included.
    """

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """(-sigma, alpha)."""
        return -sigma, alpha
