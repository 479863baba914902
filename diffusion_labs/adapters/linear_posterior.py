"""Posterior sampling for linear inverse problems."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.guidance import check_differentiable
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput, change_predictions
from diffusion_labs.predictors.predictor import Predictor, at_least_float32
from diffusion_labs.schedules.noise_level import NoiseLevel

LinearOperator = Callable[[Tensor], Tensor]


class LinearPosterior(Adapter):
    """Samples data given a measurement ``A x0 + noise_std * noise``: moment-matching posterior sampling (MMPS).

    p(x0 | x_t) is taken as the Gaussian with the model's mean and, by Tweedie's formula, its covariance
    ``V = (sigma^2 / alpha) dx0/dx_t`` (Rozet et al., arXiv 2405.13712). Then the score of the measurement given x_t is
    ``(dx0/dx_t)^T A^T u`` with ``(A V A^T + noise_std^2) u = measurement - A x0``. Conjugate gradients find u, and
    ``Predictor.add_to_score`` adds it. (DPS, arXiv 2209.14687, has a number to tune in the place of the inverse.)

    It is exact for Gaussian data, with one iteration for each distinct eigenvalue of A V A^T. Where the measurement
    says which of several modes the data are of, it gives the others too much weight; stochastic samplers err less.

    A may be a mask (inpainting), pooling (super-resolution), a convolution (deblurring), with any network. A call costs
    one forward pass of the model and ``iterations + 1`` backward passes. In train mode, or without a measurement, the
    model is called alone. Near pure noise, V of a network that predicts noise is inexact; prefer v or clean data.

    Args:
        model: network or adapter.
        predictor: what the model predicts; its clamp is not applied to x0 in these formulas.
        operator: A, any function that is linear in data ``[b, c, ...]``, differentiable and works on each sample alone.
            Its transpose is found by differentiation.
        noise_std: standard deviation of the measurement's noise; 0 reproduces the measurement.
        iterations: of the conjugate gradients.
        measurement_key: name of the measurement, of the shape of ``operator(x0)``.
    """

    needs = frozenset({"size", "scale", "time"})

    def __init__(
        self,
        model: nn.Module,
        predictor: Predictor,
        operator: LinearOperator,
        noise_std: float,
        *,
        iterations: int = 3,
        measurement_key: str = "measurement",
    ) -> None:
        if noise_std < 0:
            raise ValueError(f"noise_std ({noise_std}) must be at least 0: the measurement's standard deviation")
        if iterations < 1:
            raise ValueError(f"iterations ({iterations}) must be at least 1")
        super().__init__(model, [measurement_key])
        self.predictor = predictor
        self.operator = operator
        self.noise_std = noise_std
        self.iterations = iterations
        self.measurement_key = measurement_key

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``.

        Raises:
            ValueError: if the measurement does not have the shape of ``operator(x0)``.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        measurement = conditions.get(self.measurement_key)
        if self.training or measurement is None:
            output: DiffusionOutput = self.model(x, timestep, conditions)
            return output
        check_differentiable()
        level = self.predictor.schedule.at(timestep, x)

        # What the measurement would be, and the product of a vector with (d expected / d x_t)^T
        linearised: Any = torch.func.vjp(lambda x: self._expect(x, timestep, conditions, level), x, has_aux=True)
        expected, transpose, given = linearised
        output = DiffusionOutput(**given)
        if measurement.shape != expected.shape:
            raise ValueError(
                f"conditional_inputs['{self.measurement_key}'] has shape {list(measurement.shape)}, but the operator "
                f"makes {list(expected.shape)} of this x; measure with the same operator"
            )
        channels = output.prediction.shape[1]
        # No nested def: the tests check the shapes of functions, and making a checked function does not compile
        gradient = lambda u: transpose(u.to(expected.dtype))[0][:, :channels]  # noqa: E731

        # (A V A^T + noise_std^2) u = measurement - A x0
        tweedie = torch.as_tensor(level.sigma**2 / level.alpha)
        tweedie = torch.where(torch.as_tensor(level.alpha == 0), 0.0, tweedie)
        u = conjugate_gradients(
            lambda u: at_least_float32(self.operator((tweedie * gradient(u)).to(x.dtype))) + self.noise_std**2 * u,
            at_least_float32(measurement) - at_least_float32(expected),
            self.iterations,
        )
        score = gradient(u)
        return change_predictions(output, lambda y: self.predictor.add_to_score(y, score, timestep))

    def _expect(
        self, x: Tensor, timestep: Tensor, conditions: ConditionalInputs, level: NoiseLevel
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``A x0``, and the tensors of the model's output."""
        output: DiffusionOutput = self.model(x, timestep, conditions)
        xt = x[:, : output.prediction.shape[1]]  # without the channels that adapters concatenate
        x0 = self.predictor.unclamped_x0(output.prediction, xt, level).to(x.dtype)
        return self.operator(x0), {name: value for name, value in output._asdict().items() if value is not None}


def conjugate_gradients(operator: LinearOperator, right: Tensor, iterations: int) -> Tensor:
    """An approximate solution u of ``operator(u) = right``, for each sample on its own, from u = 0.

    Hestenes and Stiefel's method. A direction in which the operator is not positive, which the covariance of a
    network may be, is not followed.

    Args:
        operator: symmetric and positive on each sample.
        right: ``[b]`` or ``[b, ...]``.
        iterations: number of calls of the operator.
    """
    u = torch.zeros_like(right)
    residual = direction = right
    error = inner(residual, residual)
    for _ in range(iterations):
        image = operator(direction)
        step = ratio(error, inner(direction, image))
        u = u + step * direction
        residual = residual - step * image
        last, error = error, inner(residual, residual)
        direction = residual + ratio(error, last) * direction
    return u


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, ``[b, 1, ...]``."""
    return (a * b).reshape(len(a), -1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """``a / b`` where b is positive, else 0."""
    positive = b > 0
    return torch.where(positive, a / torch.where(positive, b, 1.0), 0.0)
