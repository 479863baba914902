"""What a network is trained to predict, and the way back to clean data."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffusion_labs.schedules.noise_level import Coefficient, NoiseLevel, weighted_sum
from diffusion_labs.schedules.schedule import Schedule

Clamp = Callable[[Tensor], Tensor]
PRECISE = (torch.float32, torch.float64)


class Denoised(NamedTuple):
    """An estimate of the clean data and of the noise, with ``xt = alpha * x0 + sigma * eps``."""

    x0: Tensor
    eps: Tensor


class Predictor(nn.Module):
    """Base class: the network outputs ``y = a * x0 + b * noise``; (a, b) is all that a child writes.

    A child with arguments of its own sets them before ``super().__init__``, which calls ``coefficients``.

    With ``det = alpha * b - sigma * a``, the estimates that a prediction y and x_t contain are
    ``x0 = (b * xt - sigma * y) / det`` and ``eps = (alpha * y - a * xt) / det``.

    Args:
        schedule: the process.
        clamp: applied to every estimate of x0, for example ``StaticClamp()``; eps is then derived
            again from the clamped x0, so that the pair still satisfies the process.

    Raises:
        ValueError: if ``det`` is 0 at the schedule's last time: there, x0 cannot be told from y.
    """

    def __init__(self, schedule: Schedule, clamp: Clamp | None = None) -> None:
        super().__init__()
        self.schedule = schedule
        self.clamp = clamp
        (level,) = schedule.levels(torch.tensor([schedule.terminal], dtype=torch.float64, device="cpu"))
        try:
            det = self.det(level)
        except AttributeError as error:
            raise AttributeError(
                f"{error}; {type(self).__name__} must set what its coefficients need before super().__init__, which "
                "calls them"
            ) from error
        if det == 0:
            raise ValueError(
                f"{type(self).__name__} is undefined at the schedule's last time ({schedule.terminal:g}), where "
                f"alpha = {level.alpha:.3g} and sigma = {level.sigma:.3g}: the prediction says nothing about "
                "the data there. Predict v or the clean data, or use a schedule whose terminal SNR is not zero"
            )

    def coefficients(self, alpha: Coefficient, sigma: Coefficient) -> tuple[Coefficient, Coefficient]:
        """(a, b) of ``y = a * x0 + b * noise``, given alpha and sigma."""
        raise NotImplementedError(f"{type(self).__name__} must define coefficients")

    def det(self, level: NoiseLevel) -> Coefficient:
        """``alpha * b - sigma * a``."""
        a, b = self.coefficients(level.alpha, level.sigma)
        return level.alpha * b - level.sigma * a

    def target(
        self, x0: Float[Tensor, "b *d"], noise: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Float[Tensor, "b *d"]:
        """What the network should output: ``a * x0 + b * noise``."""
        level = self.schedule.at(t, x0)
        a, b = self.coefficients(level.alpha, level.sigma)
        return (a * x0 + b * noise).to(x0.dtype)

    def predict_x0(
        self, prediction: Float[Tensor, "b *d"], xt: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Float[Tensor, "b *d"]:
        """The clean data, clamped if there is a clamp."""
        return self.denoise(prediction, xt, t).x0

    def predict_noise(
        self, prediction: Float[Tensor, "b *d"], xt: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Float[Tensor, "b *d"]:
        """The noise that goes with ``predict_x0``."""
        return self.denoise(prediction, xt, t).eps

    def denoise(
        self, prediction: Float[Tensor, "b *d"], xt: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Denoised:
        """Both estimates.

        Args:
            prediction: the network's output, ``[b, c, ...]``.
            xt: its input, ``[b, c, ...]``.
            t: its time, ``[b]`` or a scalar; not the time of clean data.
        """
        return self.denoise_at(prediction, xt, self.schedule.at(t, xt))

    def denoise_at(self, prediction: Tensor, xt: Tensor, level: NoiseLevel) -> Denoised:
        """``denoise`` at a noise level that is already known, as samplers do."""
        _, alpha, sigma, _ = level
        a, b = self.coefficients(alpha, sigma)
        det = alpha * b - sigma * a

        # Half precision cannot hold 1 / alpha near pure noise
        dtype, xt, prediction = xt.dtype, at_least_float32(xt), at_least_float32(prediction)
        x0 = weighted_sum(b / det, xt, -sigma / det, prediction)
        if self.clamp is None:
            eps = weighted_sum(alpha / det, prediction, -a / det, xt)
        else:
            x0 = self.clamp(x0)
            eps = weighted_sum(1.0, xt, -alpha, x0) / sigma
        return Denoised(in_dtype(x0, dtype), in_dtype(eps, dtype))

    def unclamped_x0(self, prediction: Tensor, xt: Tensor, level: NoiseLevel) -> Tensor:
        """The clean data that a prediction and x_t contain, before the clamp: ``(b * xt - sigma * y) / det``."""
        _, b = self.coefficients(level.alpha, level.sigma)
        det = self.det(level)
        return weighted_sum(b / det, at_least_float32(xt), -level.sigma / det, at_least_float32(prediction))

    def prediction_of(
        self, x0: Float[Tensor, "b *d"], xt: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Float[Tensor, "b *d"]:
        """The prediction whose estimate of the clean data is x0: ``y = (b * xt - det * x0) / sigma``.

        Args:
            x0: an estimate of the clean data, ``[b, c, ...]``.
            xt: the noisy data, ``[b, c, ...]``.
            t: its time, ``[b]`` or a scalar; not the time of clean data.
        """
        level = self.schedule.at(t, xt)
        _, b = self.coefficients(level.alpha, level.sigma)
        prediction = (b * at_least_float32(xt) - self.det(level) * at_least_float32(x0)) / level.sigma
        return prediction.to(xt.dtype)

    def add_to_score(
        self, prediction: Float[Tensor, "b *d"], gradient: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Float[Tensor, "b *d"]:
        """The prediction with the gradient g of a log-likelihood added to the score: ``y - (sigma det / alpha) g``.

        The score is ``-eps / sigma``, so that ``eps`` becomes ``eps - sigma g`` (ADM, arXiv 2105.05233, Alg. 2), ``x0``
        becomes ``x0 + (sigma^2 / alpha) g``, and x_t is what it was. Where alpha = 0, x_t says nothing about the data,
        and nothing is added.

        Args:
            prediction: the network's output y, ``[b, c, ...]``.
            gradient: of log p(condition | x_t) with respect to x_t, ``[b, c, ...]``.
            t: the time, ``[b]`` or a scalar.
        """
        level = self.schedule.at(t, prediction)
        scale = torch.as_tensor(level.sigma * self.det(level) / level.alpha)
        scale = torch.where(torch.as_tensor(level.alpha == 0), 0.0, scale)
        return (at_least_float32(prediction) - scale * at_least_float32(gradient)).to(prediction.dtype)

    def convert(
        self,
        prediction: Float[Tensor, "b *d"],
        xt: Float[Tensor, "b *d"],
        t: Shaped[Tensor, "*b"],
        to: "Predictor",
    ) -> Float[Tensor, "b *d"]:
        """What another predictor of the same schedule would output, for the same estimates of data and noise.

        Args:
            prediction: the network's output, as this predictor reads it, ``[b, c, ...]``.
            xt: its input, ``[b, c, ...]``.
            t: its time, ``[b]`` or a scalar.
            to: the other predictor.
        """
        x0, eps = self.denoise(prediction, xt, t)
        return to.target(x0, eps, t)

    def x0_error_scale(self, t: Tensor, like: Tensor) -> Tensor:
        """``(sigma / det)^2``: turns a squared error of y into one of x0, shaped like ``at``'s levels."""
        level = self.schedule.at(t, like)
        return torch.as_tensor((level.sigma / self.det(level)) ** 2)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if it is."""
    return x if x.dtype in PRECISE else x.to(torch.promote_types(x.dtype, torch.float32))


def in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``, without the cost of that call where it changes nothing."""
    return x if x.dtype == dtype else x.to(dtype)
