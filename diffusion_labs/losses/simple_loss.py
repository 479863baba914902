"""Squared error of the prediction, weighted by noise level."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from diffusion_labs.losses.weighting import Weighting
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.predictors.predictor import Predictor, at_least_float32

BatchMean = Callable[[Tensor, Tensor], Tensor]  # from the times and losses of a batch, [b], to a scalar


class SimpleLoss(nn.Module):
    """Mean squared error of the network's prediction, optionally weighted by noise level.

    ``w(log_snr) * (sigma / det)^2 * |y - target|^2``, which equals ``w(log_snr) * |x0_hat - x0|^2`` in
    every parameterisation; averaged over all dimensions. Without a weighting the error is that of the
    network's own output (for noise prediction, DDPM's simple loss).

    Args:
        predictor: needed with a weighting.
        weighting: a function of log-SNR: ``MinSNR()``, ``P2()``, ``EDM()``, ``SNR()``, ``Uniform()``,
            ``Sigmoid()``.
        mean: from times and losses, ``[b]``, to a scalar; the plain mean if ``None``. ``ImportanceMean`` keeps the
            expected loss when the times are drawn from another density than the intended one.
        target_field: target to read.
        time_field: time to read.
    """

    def __init__(
        self,
        predictor: Predictor | None = None,
        weighting: Weighting | None = None,
        *,
        mean: BatchMean | None = None,
        target_field: str = "target",
        time_field: str = "t",
    ) -> None:
        super().__init__()
        if (predictor is None) != (weighting is None):
            raise ValueError("give a predictor and a weighting together, or neither")
        self.predictor = predictor
        self.weighting = weighting
        self.mean = mean
        self.target_field = target_field
        self.time_field = time_field

    def forward(self, output: DiffusionOutput, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch.

        Args:
            output: what the network returned for ``batch["xt"]``.
            batch: a dict with the fields ``target`` and, for a weighting or ``mean``, ``t``.

        Returns:
            A scalar, float32 or better.

        Raises:
            KeyError: naming the missing field.
            ValueError: if prediction and target have different shapes.
        """
        prediction, target = output.prediction, field(self, batch, self.target_field)
        if prediction.shape != target.shape:
            raise ValueError(
                f"the prediction has shape {list(prediction.shape)}, but '{self.target_field}' has {list(target.shape)}"
            )
        error = mean_flat((at_least_float32(prediction) - at_least_float32(target)) ** 2)
        if self.predictor is not None and self.weighting is not None:
            t = field(self, batch, self.time_field)
            log_snr = self.predictor.schedule.log_snr(t)
            weight = self.weighting(log_snr) * self.predictor.x0_error_scale(t, target).reshape(log_snr.shape)
            error = weight.to(error.dtype) * error
        return error.mean() if self.mean is None else self.mean(field(self, batch, self.time_field), error)


def field(loss: nn.Module, batch: Mapping[str, Tensor], name: str) -> Tensor:
    """A field of the batch, or a ``KeyError`` that names the loss, the field and those there are."""
    if name not in batch:
        raise KeyError(f"{type(loss).__name__} needs '{name}'; the batch has {sorted(batch)}")
    return batch[name]


def mean_flat(x: Tensor) -> Tensor:
    """Mean over all dimensions but the batch, ``[b]``."""
    return x.flatten(1).mean(1)
