"""Transforms that noise the data and compute what the network should predict."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.predictors.v_predictor import VPredictor
from diffusion_labs.randomness import independent_uniform
from diffusion_labs.schedules.density import Density
from diffusion_labs.schedules.schedule import Schedule
from diffusion_labs.transforms.transform import Batch, Transform


class RandomDiffusionSteps(Transform):
    """Draws a time and noise for each sample, and noises it: ``xt = alpha(t) * x0 + sigma(t) * noise``.

    Args:
        schedule: the process.
        density: how often each time is drawn; the schedule's own if ``None``.
        uniform: from the batch to the uniform numbers ``[b]`` whose quantiles the times are, independent ones by
            default: ``stratified_uniform`` covers the density evenly within every batch; its times are no function of a
            sample's key, as it draws one number a batch from torch's generator.
        data_field: clean data to read, ``[b, c, ...]``.
        time_field: time to write, ``[b]``.
        noise_field: noise to write, ``[b, c, ...]``.
        xt_field: noisy data to write, ``[b, c, ...]``.

    Raises:
        ValueError: if the density has no mass on the schedule's times, or an infinite one; when called, for data that
            are not floating point.
    """

    def __init__(
        self,
        schedule: Schedule,
        density: Density | None = None,
        *,
        uniform: Callable[[Tensor], Tensor] | None = None,
        data_field: str = "x",
        time_field: str = "t",
        noise_field: str = "noise",
        xt_field: str = "xt",
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.density = schedule.density if density is None else density
        self.density.check(schedule)
        self.uniform = uniform
        self.data_field = data_field
        self.time_field = time_field
        self.noise_field = noise_field
        self.xt_field = xt_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class."""
        x0 = self.field(batch, self.data_field)
        if not x0.is_floating_point():
            raise ValueError(
                f"'{self.data_field}' has dtype {x0.dtype}; put NormalizeImages() before {type(self).__name__}"
            )
        u = independent_uniform(x0, self.generator(batch, 0)) if self.uniform is None else self.uniform(x0)
        t = self.density.times(self.schedule, u)
        noise = self.schedule.sample_noise(x0, self.generator(batch, 1))
        xt = self.schedule.q_sample(x0, noise, t)
        return {**batch, self.time_field: t, self.noise_field: noise, self.xt_field: xt}


class ComputeTarget(Transform):
    """Computes what the network should predict, after ``RandomDiffusionSteps``.

    Args:
        predictor: what the network predicts.
        data_field: clean data to read.
        time_field: time to read.
        noise_field: noise to read.
        target_field: target to write, ``[b, c, ...]``.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        data_field: str = "x",
        time_field: str = "t",
        noise_field: str = "noise",
        target_field: str = "target",
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.data_field = data_field
        self.time_field = time_field
        self.noise_field = noise_field
        self.target_field = target_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class."""
        x0, noise = self.field(batch, self.data_field), self.field(batch, self.noise_field)
        target = self.predictor.target(x0, noise, self.field(batch, self.time_field))
        return {**batch, self.target_field: target}


class ComputeV(ComputeTarget):
    """``ComputeTarget`` for v prediction: ``v = alpha(t) * noise - sigma(t) * x0``."""

    def __init__(self, schedule: Schedule, **fields: str) -> None:
        super().__init__(VPredictor(schedule), **fields)

    def constructor_arguments(self) -> dict[str, Any]:
        """What the constructor would be given for the same transform."""
        fields = {name: value for name, value in vars(self).items() if name.endswith("_field")}
        return {"schedule": self.predictor.schedule, **fields}
