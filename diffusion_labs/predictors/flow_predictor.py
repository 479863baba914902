"""Prediction of the velocity of a straight path."""

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.schedules.noise_level import Coefficient


class FlowPredictor(Predictor):
    """The network predicts ``noise - x0`` (flow matching, arXiv 2210.02747; Stable Diffusion 3).

    On ``RectifiedFlowSchedule`` it is the derivative of x_t with respect to sigma.
    """

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """(-1, 1)."""
        return -1.0, 1.0
