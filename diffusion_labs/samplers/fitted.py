"""A solver whose weights are fitted to one model."""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.grids import Grid, at_times, linspace
from diffusion_labs.samplers.sampler import Denoise, Estimate, Noise, Sampler, SamplerOptions, check_eval_mode
from diffusion_labs.schedules.noise_level import NoiseLevel, weighted_sum
from diffusion_labs.schedules.schedule import Schedule

Weights = Sequence[Sequence[float]]

LEAST_EIGENVALUE = 1e-12  # of the largest: what is below it in products of float32 numbers is rounding


class FittedSampler(Sampler):
    """A multi-step solver whose weights are fitted to one model, guidance and grid. One call a step, deterministic.

    With ``r = sqrt(alpha^2 + sigma^2)`` and the velocity ``v_t = (alpha_t eps - sigma_t x0) / r_t``,

        ``x_s / r_s = w_0 x_t / r_t + w_1 v_t + w_2 v_(t+1) + ...``,

    where t + 1 is the call before t. With ``w = (cos d, -sin d)``, where d is the angle from (alpha_s, sigma_s) to
    (alpha_t, sigma_t), that is DDIM. Each step has weights of its own, as in Bespoke Non-Stationary solvers (arXiv
    2403.01329), which contain all multi-step solvers; ``fit`` finds them by least squares, without gradients, in the
    time that some precise samples take. Few steps then end closer to the samples of many steps than with weights that
    know nothing of the model. They are for one model and guidance scale: for others, fit again.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        weights: ``(w_0, w_1, ...)`` of each step, the last of which goes to clean data; those of DDIM if ``None``.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``. Weights are for one grid.

    Attributes:
        weights: as given; numbers, which ``json`` can store beside ``sampler.times().tolist()``.
        order: the most velocities in a step.

    Raises:
        ValueError: if ``weights`` has another number of steps than the grid, or fewer than two for one; when sampling,
            if weights are given and ``start`` too.

    Example:
        >>> precise = dl.DDIMSampler(model, schedule, predictor, eval_steps=100, progress_bar=False).eval()
        >>> fast = dl.FittedSampler.fit(precise, noise, eval_steps=6)
        >>> plain = dl.DDIMSampler(model, schedule, predictor, eval_steps=6, progress_bar=False).eval()
        >>> error, plain_error = ((sampler(noise) - precise(noise)).norm() for sampler in (fast, plain))
        >>> bool(error < plain_error / 2)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        weights: Weights | None = None,
        **options: Unpack[SamplerOptions],
    ) -> None:
        self.weights = None if weights is None else tuple(tuple(map(float, row)) for row in weights)
        self.order = 1
        super().__init__(model, schedule, predictor, **options)
        if self.weights is None:
            return
        if len(self.weights) != len(self.times()):
            raise ValueError(
                f"weights are of {len(self.weights)} steps, but the grid has {len(self.times())}; give the grid and "
                "the eval_steps that they were fitted with"
            )
        if min(map(len, self.weights)) < 2:
            raise ValueError("weights must have two or more numbers for each step: of x_t and of the last velocity")
        self.order = max(map(len, self.weights)) - 1

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        reference: Sampler,
        x: Tensor,
        conditional_inputs: ConditionalInputs | None = None,
        *,
        eval_steps: int,
        grid: Grid = linspace,
        order: int = 4,
    ) -> "FittedSampler":
        """Fit to the samples of a precise sampler: step by step, least squares to its points from the same noise.

        Each step is fitted on the points that the fitted steps before it reach, so it mends their errors, too.

        Args:
            reference: a deterministic sampler of many steps, such as DDIM with all of them, in eval mode.
            x: noise ``[b, c, ...]`` from ``schedule.sample_prior``; 16 images are enough.
            conditional_inputs: theirs, as varied as those to sample with.
            eval_steps: calls of the model.
            grid: places the calls, each at the nearest time of the reference's.
            order: the most velocities in a step; 4 is enough below 8 calls, 6 may be better above.

        Returns:
            The fitted sampler of the same model, in eval mode.

        Raises:
            ValueError: if the reference is in train mode, draws noise, has too few steps for the grid, or a point
                that is not finite; for no samples; or if ``eval_steps`` or ``order`` is below 1.
        """
        for name, value in {"order": order, "eval_steps": eval_steps}.items():
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        if not len(x):
            raise ValueError("x has no samples to fit to; give 16 or so")
        check_eval_mode(reference)
        schedule = reference.schedule
        times, targets = _targets(reference, x, conditional_inputs, grid(schedule, eval_steps))
        levels = schedule.levels(times.to(x.device))
        denoise = reference.denoiser(conditional_inputs)

        weights, terms = list[tuple[float, ...]](), tuple[Tensor, ...]()
        for t, s, target in zip(levels, [*levels[1:], None], targets, strict=True):
            terms = _terms(denoise(x, t), t, terms[1:], order)
            weights.append(_least_squares(terms, target / _radius(s)))
            x = _radius(s) * _combined(weights[-1], terms)
        parts = reference.model, schedule, reference.predictor
        options = SamplerOptions(
            eval_steps=eval_steps, grid=at_times(times.tolist()), progress_bar=reference.progress_bar
        )
        return cls(*parts, weights=weights, **options).eval()

    def times(self, start: float | None = None) -> Tensor:
        """See ``Sampler``; fitted weights are for the way from the last time on.

        Raises:
            ValueError: if weights are given, and ``start``.
        """
        if start is not None and self.weights is not None:
            raise ValueError(f"fitted weights are for the whole way, not from start ({start}) on; take another sampler")
        return super().times(start)

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel | None, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        index, velocities = past or (0, ())
        weights = _ddim(t, s) if self.weights is None else self.weights[index]
        terms = _terms(denoise(xt, t), t, velocities, self.order)
        return _radius(s) * _combined(weights, terms), (index + 1, terms[1:])

    def last_step(self, xt: Tensor, t: NoiseLevel, past: Any, denoise: Denoise) -> Tensor:
        """As every other step, with weights of its own."""
        x, _ = self.step(xt, t, None, past, denoise, lambda: xt)
        return x


def _targets(
    reference: Sampler, x: Tensor, conditional_inputs: ConditionalInputs | None, wanted: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The reference's times nearest to those wanted, and its points at each that follows, the last of which is clean.

    Raises:
        ValueError: see ``FittedSampler.fit``.
    """
    name = type(reference).__name__

    def refuse(*_: object) -> Tensor:
        raise ValueError(f"{name} draws noise, so its samples are no function of x; take a deterministic reference")

    times = reference.times()
    calls = (times.double() - wanted.double()[:, None]).abs().argmin(1)
    if bool((calls.diff() <= 0).any()):
        raise ValueError(
            f"the reference makes {len(times)} steps, too few to tell the {len(wanted)} times of the grid apart; give "
            "it more eval_steps"
        )
    ends = {*calls[1:].tolist(), len(times)}
    path = enumerate(reference.generator(x, None, conditional_inputs, generator=refuse), 1)
    targets = [point for call, point in path if call in ends]
    if not all(bool(point.isfinite().all()) for point in targets):
        raise ValueError(f"{name} gave a point that is not finite; check the model, and x")
    return times[calls], targets


def _radius(level: NoiseLevel | None) -> Any:
    """r; of clean data if ``None``."""
    return 1.0 if level is None else (level.alpha**2 + level.sigma**2) ** 0.5


def _terms(estimate: Estimate, level: NoiseLevel, velocities: Sequence[Tensor], order: int) -> tuple[Tensor, ...]:
    """What a step weighs: ``x_t / r`` and v, from the pair of the estimate, and velocities of before."""
    x0, eps, _ = estimate
    r = _radius(level)
    point = weighted_sum(level.alpha / r, x0, level.sigma / r, eps)
    velocity = weighted_sum(level.alpha / r, eps, -level.sigma / r, x0)
    return (point, *(velocity, *velocities)[:order])


def _ddim(t: NoiseLevel, s: NoiseLevel | None) -> tuple[Any, Any]:
    """The cosine and minus the sine of the angle between the directions of (alpha, sigma)."""
    alpha, sigma = (1.0, 0.0) if s is None else (s.alpha, s.sigma)
    product = _radius(t) * _radius(s)
    return (alpha * t.alpha + sigma * t.sigma) / product, (sigma * t.alpha - alpha * t.sigma) / product


def _combined(weights: Iterable[Any], terms: Sequence[Tensor]) -> Tensor:
    (first, second, *others), (point, velocity, *before) = weights, terms
    x = weighted_sum(first, point, second, velocity)
    for weight, term in zip(others, before, strict=True):
        x = weighted_sum(1.0, x, weight, term)
    return x


def _least_squares(terms: Sequence[Tensor], target: Tensor) -> tuple[float, ...]:
    """The weights of the sum of terms that is nearest to the target, by the normal equations in float64."""
    columns = torch.stack([term.flatten().to("cpu", torch.float64) for term in terms])
    products = columns @ columns.T
    wanted = columns @ target.flatten().to("cpu", torch.float64)
    return tuple((torch.linalg.pinv(products, rtol=LEAST_EIGENVALUE, hermitian=True) @ wanted).tolist())
