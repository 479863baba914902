"""How a guided prediction is made of the predictions of several passes: every formula of guidance is here."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor, at_least_float32
from diffusion_labs.schedules.noise_level import NoiseLevel

Combine = Callable[[Tensor, Sequence[Tensor], Sequence[float], Tensor, Tensor], Tensor]
"""``combine(u, conditionals, scales, x, timestep)``: the guided prediction, ``[b, c, ...]``.

``u`` is the prediction to move away from, ``conditionals`` are those to move towards, each with its scale; ``x`` and
``timestep`` are what the model got. A combination gives c for a single conditional of scale 1.
"""


def linear(u: Tensor, conditionals: Sequence[Tensor], scales: Sequence[float], x: Tensor, timestep: Tensor) -> Tensor:
    """``u + sum_i s_i (c_i - u)``.

    Classifier-free guidance for one conditional (arXiv 2207.12598, Eq. 6, with w = s - 1), the conjunction of
    Composable Diffusion (arXiv 2206.01714) for several.
    """
    guided = u
    for c, s in zip(conditionals, scales, strict=True):
        guided = guided + s * (c - u)
    return guided


class GuidanceRescale(nn.Module):
    """Gives the guided prediction the spread of the conditional one (arXiv 2305.08891, Sec. 3.4).

    ``(phi std(c) / std(g) + 1 - phi) g``, with g what ``combine`` gives, c the mean of the conditionals, and the
    standard deviation over each sample. High scales overexpose less. It acts on what the network predicts, v in the
    paper, so that it is another rule for another predictor.

    Args:
        phi: 0 is g itself, 1 the full rescaling; the paper's 0.7.
        combine: the combination that is rescaled.
    """

    def __init__(self, phi: float = 0.7, combine: Combine = linear) -> None:
        super().__init__()
        if not 0 <= phi <= 1:
            raise ValueError(f"phi ({phi}) must be in [0, 1]: 0 leaves guidance as it is, 1 rescales it fully")
        self.phi = phi
        self.combine = combine

    def forward(
        self, u: Tensor, conditionals: Sequence[Tensor], scales: Sequence[float], x: Tensor, timestep: Tensor
    ) -> Tensor:
        """See ``Combine``."""
        guided = self.combine(u, conditionals, scales, x, timestep)
        wanted, own = spread(torch.stack(list(conditionals)).mean(0)), spread(guided)
        ratio = torch.where(own > 0, wanted / own, 1.0)
        return ((self.phi * ratio + 1 - self.phi) * guided).to(guided.dtype)


class AdaptiveProjectedGuidance(nn.Module):
    """Guidance without the part that only scales the image (APG, arXiv 2410.02416).

    ``c + (s - 1) (orthogonal + eta parallel)``, the parts of ``min(1, r / |d|) d`` with respect to the conditional
    estimate of x0, where ``d = x0_c - x0_u``: the parallel one saturates colours. Each of several conditionals has its
    own difference: ``u + sum_i (d_i + (s_i - 1) d_i')``. The paper's momentum is a memory of earlier steps,
    which an adapter must not have, and is left out.

    ``x0_c - x0_u = -(sigma / det) (c - u)`` for every predictor, so the prediction's difference is projected itself.
    Nothing is divided by alpha, and a clamp of the predictor has no part in it.

    Args:
        predictor: what the model predicts.
        eta: weight of the parallel part; 1 is ordinary guidance.
        norm_threshold: r, the largest length of d, in the data's units (it grows with the size of the data); no bound
            if ``None``.
    """

    needs = frozenset({"time", "scale"})

    def __init__(self, predictor: Predictor, *, eta: float = 0.0, norm_threshold: float | None = None) -> None:
        super().__init__()
        if norm_threshold is not None and not norm_threshold > 0:
            raise ValueError(f"norm_threshold ({norm_threshold}) must be positive; None is no bound")
        self.predictor = predictor
        self.eta = eta
        self.norm_threshold = norm_threshold

    def forward(
        self, u: Tensor, conditionals: Sequence[Tensor], scales: Sequence[float], x: Tensor, timestep: Tensor
    ) -> Tensor:
        """See ``Combine``."""
        level = self.predictor.schedule.at(timestep, u)
        xt = x[:, : u.shape[1]]  # outer adapters append their channels to the data's
        guided = at_least_float32(u)
        for c, s in zip(conditionals, scales, strict=True):
            difference = at_least_float32(c - u)
            guided = guided + difference + (s - 1) * self.project(difference, c, xt, level)
        return guided.to(u.dtype)

    def project(self, difference: Tensor, c: Tensor, xt: Tensor, level: NoiseLevel) -> Tensor:
        """The bounded difference of two predictions, with the part along x0_c weighted by eta."""
        _, b = self.predictor.coefficients(level.alpha, level.sigma)
        x0_direction = b * at_least_float32(xt) - level.sigma * at_least_float32(c)  # det * x0_c
        unit = F.normalize(x0_direction.flatten(1), dim=1).view_as(x0_direction)
        parallel = (difference * unit).flatten(1).sum(1).reshape(-1, *[1] * (unit.ndim - 1)) * unit
        projected = difference - parallel + self.eta * parallel
        if self.norm_threshold is None:
            return projected

        to_x0 = torch.as_tensor(level.sigma / self.predictor.det(level)).abs()
        length = to_x0 * torch.linalg.vector_norm(difference, dim=tuple(range(1, unit.ndim)), keepdim=True)
        return (self.norm_threshold / length).clamp(max=1) * projected


def spread(x: Tensor) -> Tensor:
    """The standard deviation of each sample, ``[b, 1, ..., 1]``, in float32 at least."""
    return at_least_float32(x).std(dim=tuple(range(1, x.ndim)), correction=0, keepdim=True)
