"""Prediction of EDM's preconditioned target."""

from diffusion_labs.predictors.predictor import Clamp, Predictor
from diffusion_labs.schedules.noise_level import Coefficient
from diffusion_labs.schedules.schedule import Schedule


class EDMPredictor(Predictor):
    """The network predicts F with ``x0 = c_skip x + c_out F``, x being ``x_t / alpha`` (EDM, arXiv 2206.00364, Eq. 7).

    With s = sigma / alpha: ``c_skip = sigma_data^2 / (s^2 + sigma_data^2)`` and
    ``c_out = s sigma_data / sqrt(s^2 + sigma_data^2)`` (Table 1), so
    ``F = (x0 - c_skip (x0 + s noise)) / c_out``, which is written here without dividing by alpha:
    ``a = sigma / (d sigma_data)`` and ``b = -alpha sigma_data / d`` with ``d^2 = sigma^2 + alpha^2 sigma_data^2``.

    Args:
        schedule: see ``Predictor``.
        clamp: see ``Predictor``.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, schedule: Schedule, clamp: Clamp | None = None, *, sigma_data: float = 0.5) -> None:
        if not sigma_data > 0:
            raise ValueError(f"sigma_data ({sigma_data}) must be positive")
        self.sigma_data = sigma_data
        super().__init__(schedule, clamp)

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """See the class."""
        d = (sigma**2 + alpha**2 * self.sigma_data**2) ** 0.5
        return sigma / (d * self.sigma_data), -alpha * self.sigma_data / d
