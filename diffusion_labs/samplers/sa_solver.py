"""SA-Solver."""

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

from torch import Tensor, nn

from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.samplers.exponential import Point, bend, step_size
from diffusion_labs.samplers.sampler import Denoise, Noise, Sampler, SamplerOptions
from diffusion_labs.schedules.noise_level import NoiseLevel, remaining
from diffusion_labs.schedules.schedule import Schedule


class Past(NamedTuple):
    """The estimates of x0 before, the size of the last step's kernel, and what its polynomial added."""

    points: tuple[Point, ...]
    kernel: Any
    added: Any


class SASolverSampler(Sampler):
    """SA-Solver (arXiv 2309.05019, Alg. 1, data prediction): a stochastic Adams method. One call a step.

    For the reverse SDE with tau times its noise, tau constant in a step, and ``h`` half the difference of log-SNR:
    ``x_s = alpha_s x0 + sigma_s e^(-tau^2 h) eps + alpha_s sum_j w_j (x0_j - x0) + sigma_s sqrt(1 - e^(-2 tau^2 h))
    noise``. The sum is the exact integral of the polynomial in log-SNR through the last estimates of x0
    (``exponential``, kernel ``e^(-(1 + tau^2) h (1 - u))``): the predictor. When x0 is known at s too, the corrector
    does the step again, with the same noise, through that estimate and the last. tau = 0 is an ODE solver, tau = 1
    the SDE of ``DPMSolverPPSDE3MSampler``. The first steps have fewer estimates.

    The paper's code replaces the weight of the slope, where there are two estimates, by ``(1 + tau^2) h / 2``: the
    same to second order, but unbounded in long steps. Here it is the integral, at most 1.

    Args:
        model: see ``Sampler``.
        schedule: see ``Sampler``.
        predictor: see ``Sampler``.
        tau: strength of the noise, at least 0: a number, or a function of the noise level where a step begins.
        predictor_order: number of estimates that the predictor uses, at least 1.
        corrector_order: number of those that the corrector uses, the new one included, at least 2; 1 is no corrector.
        **options: ``eval_steps``, ``grid``, ``progress_bar``; see ``Sampler``.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        tau: float | Callable[[NoiseLevel], float] = 1.0,
        predictor_order: int = 3,
        corrector_order: int = 3,
        **options: Unpack[SamplerOptions],
    ) -> None:
        if min(predictor_order, corrector_order) < 1:
            raise ValueError(
                f"predictor_order ({predictor_order}) and corrector_order ({corrector_order}) must be at least 1"
            )
        if not callable(tau) and tau < 0:
            raise ValueError(f"tau ({tau}) must be at least 0: 0 is deterministic")
        super().__init__(model, schedule, predictor, **options)
        self.tau = tau
        self.predictor_order = predictor_order
        self.corrector_order = corrector_order

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """See the class."""
        x0, eps, _ = denoise(xt, t)
        points: tuple[Point, ...] = (Point(t, x0), *(past.points if past is not None else ()))
        if past is not None and self.corrector_order > 1:
            new, (level, value), *before = points[: self.corrector_order]
            added = t.alpha * bend(past.kernel, level, t, value, [new, *before])
            eps = eps + (added - past.added) / t.sigma

        tau = self.tau(t) if callable(self.tau) else self.tau
        kernel = (1 + tau**2) * step_size(t, s)
        added = s.alpha * bend(kernel, t, s, x0, points[1 : self.predictor_order])
        kept = remaining(s, t) ** (tau**2)
        xs = s.alpha * x0 + s.sigma * kept**0.5 * eps + added
        if tau > 0:
            xs = xs + s.sigma * (1 - kept) ** 0.5 * noise(t, s)
        return xs, Past(points[: max(self.predictor_order, self.corrector_order) - 1], kernel, added)
