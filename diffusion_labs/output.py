"""What every network, adapter and sampler in train mode returns."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class DiffusionOutput(NamedTuple):
    """The output of one call of a network: immutable, and a pytree.

    Being a tuple of tensors, it passes through ``torch.compile``, ``torch.export`` and the hooks of
    DDP and FSDP2. Use ``output._replace(...)`` to derive another one.

    Attributes:
        prediction: what the predictor says that the network predicts, ``[b, c, ...]``.
        variance_value: ``v`` in [0, 1], ``[b, c, ...]``, which interpolates the log-variance between
            its two bounds (Improved DDPM, arXiv 2102.09672, Eq. 15); ``None`` where it is not learned.
        mean: mean of p(x_s | x_t), filled in train mode by a sampler that learns the variance.
        log_variance: log-variance of p(x_s | x_t), filled beside ``mean``.
        renoise_prediction: the prediction whose noise the next x_s gets, where it is not that of ``prediction``:
            guidance adapters may steer the clean data and leave the noise alone (CFG++, arXiv 2406.08070).
    """

    prediction: Tensor
    variance_value: Tensor | None = None
    mean: Tensor | None = None
    log_variance: Tensor | None = None
    renoise_prediction: Tensor | None = None


def change_predictions(output: DiffusionOutput, change: Callable[[Tensor], Tensor]) -> DiffusionOutput:
    """The output with a function applied to ``prediction`` and, if there is one, ``renoise_prediction``."""
    renoise = None if output.renoise_prediction is None else change(output.renoise_prediction)
    return output._replace(prediction=change(output.prediction), renoise_prediction=renoise)
