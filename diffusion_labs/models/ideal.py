"""The exact denoiser of data whose distribution is known: the oracle of tests and tutorials."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.conditioning import ConditionalInputs, ConditionalModule
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.randomness import Generators, randn
from diffusion_labs.schedules.noise_level import NoiseLevel


class IdealDenoiser(ConditionalModule):
    """The network that training would give in the limit, for a mixture of Gaussians.

    For data ``x0 ~ sum_k w_k N(mean_k, std_k^2)`` noised to ``xt``, component k has
    ``xt ~ N(alpha mean_k, alpha^2 std_k^2 + sigma^2)``, so with r_k the share of component k in x_t,
    ``E[x0 | xt] = sum_k r_k (mean_k + alpha std_k^2 / (alpha^2 std_k^2 + sigma^2) (xt - alpha mean_k))``.
    The output is that, in the predictor's parameterisation. One component is a Gaussian; std 0 is a
    finite data set.

    With ``classes``, the conditional input ``"class"`` restricts each sample to the components of a
    class; the index after the last class is "no class".

    Args:
        predictor: what to predict, for which schedule.
        means: ``[k, ...]``, the components in the shape of one sample.
        std: standard deviations, broadcast to ``means``; 0 for points.
        weights: ``[k]``, in proportion; equal if ``None``.
        classes: class of each component, 0 .. n - 1; no classes if ``None``.
    """

    means: Tensor
    std: Tensor
    log_weights: Tensor
    classes: Tensor

    def __init__(
        self,
        predictor: Predictor,
        means: Tensor,
        std: Tensor | float = 0.0,
        weights: Sequence[float] | Tensor | None = None,
        classes: Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__([] if classes is None else ["class"])
        self.predictor = predictor
        means = torch.as_tensor(means, dtype=torch.float64)
        count = means.shape[0]
        std = torch.as_tensor(std, dtype=torch.float64)
        weights = torch.ones(count) if weights is None else torch.as_tensor(weights)
        labels = torch.zeros(count, dtype=torch.long) if classes is None else torch.as_tensor(classes)
        if weights.shape != (count,) or labels.shape != (count,):
            raise ValueError(f"weights and classes need one entry for each of the {count} components")
        self.register_buffer("means", means)
        self.register_buffer("std", std.expand(means.shape).clone())
        self.register_buffer("log_weights", (weights.double() / weights.sum()).log())
        self.register_buffer("classes", labels)
        self.num_classes = int(labels.max()) + 1

    def constructor_arguments(self) -> dict[str, Any]:
        """What the constructor would be given for the same network."""
        classes = self.classes if self.condition_names else None
        return {
            "predictor": self.predictor,
            "means": self.means,
            "std": self.std,
            "weights": self.log_weights.exp(),
            "classes": classes,
        }

    @property
    def null_conditions(self) -> dict[str, int]:
        """The index that stands for "no class"."""
        return {"class": self.num_classes} if self.condition_names else {}

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``."""
        conditions = self.check_conditions(conditional_inputs, x)
        level = self.predictor.schedule.at(timestep, x)
        classes = conditions.get("class") if self.condition_names else None  # else it is for an adapter around
        x0 = self.denoise(x, level, classes)
        eps = (x - level.alpha * x0) / level.sigma
        a, b = self.predictor.coefficients(level.alpha, level.sigma)
        return DiffusionOutput((a * x0 + b * eps).to(x.dtype))

    def denoise(self, xt: Tensor, level: NoiseLevel, classes: Tensor | None = None) -> Tensor:
        """``E[x0 | xt]``, float64, ``[b, ...]``."""
        alpha, sigma = (torch.as_tensor(value).reshape(-1, 1, 1) for value in (level.alpha, level.sigma))
        means, std = self.means.double().flatten(1), self.std.double().flatten(1)  # [k, d]
        residual = xt.double().flatten(1).unsqueeze(1) - alpha * means  # [b, k, d]
        variance = (alpha * std) ** 2 + sigma**2

        log_share = self.log_weights - 0.5 * (residual**2 / variance + variance.log()).sum(-1)
        if classes is not None:
            other = (self.classes != classes.unsqueeze(1)) & (classes.unsqueeze(1) != self.num_classes)
            log_share = log_share.masked_fill(other, -torch.inf)
        share = log_share.softmax(1).unsqueeze(-1)
        x0 = (share * (means + alpha * std**2 / variance * residual)).sum(1)
        return x0.reshape(xt.shape)

    def sample(self, count: int, generator: Generators = None) -> Tensor:
        """Draw from the data's distribution, float64, ``[count, ...]``."""
        uniform = randn((count, 1), generator, dtype=torch.float64, device=self.means.device)
        uniform = torch.special.ndtr(uniform)
        component = torch.searchsorted(self.log_weights.exp().cumsum(0), uniform[:, 0]).clamp(max=len(self.means) - 1)
        noise = randn((count, *self.means.shape[1:]), generator, dtype=torch.float64, device=self.means.device)
        return self.means[component] + self.std[component] * noise
