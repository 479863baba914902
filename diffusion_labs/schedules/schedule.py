"""The noising process: how much signal and how much noise there is at each time."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffusion_labs.compilation import constant
from diffusion_labs.randomness import Generators, KeyedGenerator, independent_uniform, randn, randn_like
from diffusion_labs.schedules.density import Density, UniformTime
from diffusion_labs.schedules.noise_level import NoiseLevel, posterior, transition
from diffusion_labs.schedules.precise_module import PreciseModule


class Schedule(PreciseModule):
    """Base class: ``xt = alpha(t) * x0 + sigma(t) * noise``, with noise ~ N(0, I).

    A new schedule writes ``alpha``, ``sigma`` and ``time``, and sets ``clean``, ``first`` and ``terminal``; all
    that follows from them is written here. Times may be fractional, scalar or one per sample. Coefficients are
    computed in float64 and the result is cast once, to the data's dtype.

    Tables are non-persistent buffers: they follow the module between devices, but never change
    their dtype (except on devices without float64), are never averaged, and are not in ``state_dict``.

    Args:
        density: how often each time is trained, unless another is asked for; equally often if ``None``.

    Attributes:
        clean: the time of clean data, where alpha = 1 and sigma = 0.
        first: the time of the least noise that a network is trained on.
        terminal: the last time, where sampling starts.
        resolution: the distance of the times that a network is trained on; 0 if they are continuous.
    """

    clean: float
    first: float
    terminal: float
    resolution: float = 0.0

    def __init__(self, density: Density | None = None) -> None:
        super().__init__()
        self.density = UniformTime() if density is None else density

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data at times ``t``, float64, of the shape of ``t``."""
        raise NotImplementedError(f"{type(self).__name__} must define alpha")

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at times ``t``, float64, of the shape of ``t``."""
        raise NotImplementedError(f"{type(self).__name__} must define sigma")

    def time(self, log_snr: Tensor) -> Tensor:
        """The time with a given log-SNR: the inverse of ``log_snr``, clamped to the schedule's range."""
        raise NotImplementedError(f"{type(self).__name__} must define time")

    def sample_steps(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the training times of a batch ``x`` from the schedule's density: ``[b]``, int64 if it has steps."""
        return self.density.times(self, independent_uniform(x, generator))

    def previous(self, t: Tensor) -> Tensor:
        """The time one training step before ``t``: clean data, unless the schedule has discrete steps."""
        return torch.full_like(t, self.clean)

    def snap(self, t: Tensor) -> Tensor:
        """The nearest times that a network is trained on: int64 if the steps are discrete."""
        return t if self.resolution == 0 else ((t / self.resolution).round() * self.resolution).long()

    def log_snr(self, t: Tensor) -> Tensor:
        """``log(alpha^2 / sigma^2)``, strictly decreasing in ``t``."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """``d log_snr / dt``, negative, by forward differentiation."""
        t = self.precise(t)
        rate: Tensor = torch.func.jvp(self.log_snr, (t,), (torch.ones_like(t),))[1]
        return rate

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(alpha, sigma, log_snr)`` at times ``t``; written anew where they share most of the work."""
        return self.alpha(t), self.sigma(t), self.log_snr(t)

    def at(self, t: Tensor, like: Tensor) -> NoiseLevel:
        """The noise level at times ``t`` (``[]`` or ``[b]``), shaped to multiply ``like``, ``[b, ...]``.

        Raises:
            ValueError: if ``t`` is neither a scalar nor one time per sample.
        """
        if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != like.shape[0]):
            raise ValueError(
                f"t has shape {list(t.shape)}, but x has {list(like.shape)}; give one time per sample, "
                f"[{like.shape[0]}], or a scalar"
            )
        shape = [-1] + [1] * (like.ndim - 1) if t.ndim == 1 else []
        alpha, sigma, log_snr = (value.reshape(shape) for value in self.coefficients(t))
        return NoiseLevel(t, alpha, sigma, log_snr)

    def levels(self, times: Tensor) -> list[NoiseLevel]:
        """The noise levels of a grid of times, ``[n]``, with Python floats as coefficients.

        While ``torch.compile`` traces, the times are constants of the graph, and so are the levels.
        """
        times, *values = numbers(self, times)
        return [NoiseLevel(*level) for level in zip(times.unbind(), *values, strict=True)]

    def sample_noise(self, x: Tensor, generator: Generators | KeyedGenerator = None) -> Tensor:
        """Standard normal noise like ``x``."""
        return randn_like(x, generator)

    def sample_prior(
        self,
        shape: tuple[int, ...],
        generator: Generators = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw x_T, where sampling starts: N(0, sigma(terminal)^2 I).

        Args:
            shape: ``(b, c, ...)``.
            generator: one generator, or one per sample; see ``seeded``.
            dtype: dtype of the result.
            device: device of the result.
        """
        sigma = self.sigma(torch.tensor(self.terminal, device="cpu")).item()
        return sigma * randn(shape, generator, dtype=dtype, device=device)

    def q_sample(
        self, x0: Float[Tensor, "b *d"], noise: Float[Tensor, "b *d"], t: Shaped[Tensor, "*b"]
    ) -> Float[Tensor, "b *d"]:
        """Noise the data: ``xt = alpha(t) * x0 + sigma(t) * noise``.

        Raises:
            ValueError: for a time on a CPU that the schedule does not have; elsewhere to look would take time.
        """
        if type(t) is Tensor and t.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_times(t)
        level = self.at(t, x0)
        return (level.alpha * x0 + level.sigma * noise).to(x0.dtype)

    def check_times(self, t: Tensor) -> None:
        """Raise a ``ValueError`` unless all times are within the schedule, up to rounding."""
        slack = 1e-6 * (self.terminal - self.clean)
        if not bool(((t >= self.clean - slack) & (t <= self.terminal + slack)).all()):
            raise ValueError(
                f"t is {t.tolist()}, but the times of {type(self).__name__} are in [{self.clean:g}, {self.terminal:g}]"
            )

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha_ts, sigma_ts)`` with q(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2 I), for s < t.

        Two transitions compose: ``alpha_rt = alpha_rs alpha_st`` and
        ``sigma_rt^2 = sigma_st^2 + alpha_st^2 sigma_rs^2``.
        """
        levels = (NoiseLevel(u, *self.coefficients(u)) for u in (s, t))
        alpha, variance = transition(*levels)
        return torch.as_tensor(alpha), torch.as_tensor(variance).sqrt()

    def q_posterior(
        self,
        x0: Float[Tensor, "b *d"],
        xt: Float[Tensor, "b *d"],
        t: Shaped[Tensor, "*b"],
        variance_value: Tensor | float | None = None,
        s: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b *d"], Float[Tensor, "..."]]:
        """Mean and log-variance of x_s, given x_t and (an estimate of) x_0.

        ``log_variance = v * log(large) + (1 - v) * log(small)`` (Improved DDPM, arXiv 2102.09672,
        Eq. 15), where ``small`` is the variance of q(x_s | x_t, x_0) and ``large`` that of q(x_t | x_s).

        Args:
            x0: clean data, ``[b, c, ...]``.
            xt: noisy data, ``[b, c, ...]``.
            t: the time of ``xt``.
            variance_value: v in [0, 1], ``[b, c, ...]``, of a network that learns the variance; 0 or
                ``None`` is DDPM's fixed-small variance, 1 its fixed-large one (beta_t, at the first step too,
                where some implementations take the fixed-small variance for the sake of the likelihood).
            s: the time to go to, before ``t``; one step back if ``None``. On the step to clean data
                ``small`` is 0, and ``first_variance`` takes its place in the logarithm.

        Returns:
            The mean, ``[b, c, ...]``, and the log-variance, which broadcasts with it.
        """
        now, to = self.at(t, x0), self.at(self.previous(t) if s is None else s, x0)
        step = posterior(to, now)
        mean = step.from_xt * xt + step.from_x0 * x0
        small = torch.where(torch.as_tensor(to.sigma == 0), self.first_variance(), torch.as_tensor(step.small))
        fraction = 0.0 if variance_value is None else variance_value
        log_variance = fraction * torch.log(torch.as_tensor(step.large)) + (1 - fraction) * small.log()
        return mean.to(x0.dtype), log_variance.to(x0.dtype)

    def first_variance(self) -> Tensor | float:
        """A positive stand-in for the variance of the step to clean data, which is 0."""
        return 1e-20

    def register_table(self, name: str, table: Tensor) -> None:
        """Register a float64 table that stays float64 and real, also for a model on the meta device."""
        self.register_buffer(name, table, persistent=False)


@constant
def numbers(schedule: Schedule, times: Tensor) -> tuple[Tensor, list[float], list[float], list[float]]:
    """Times, ``[n]``, and their coefficients as Python floats: ``(t, alpha, sigma, log_snr)``."""
    alpha, sigma, log_snr = (value.tolist() for value in schedule.coefficients(times))
    return times, alpha, sigma, log_snr


class ContinuousSchedule(Schedule):
    """Base of schedules in continuous time: clean data at 0, the last time 1 unless a child sets another.

    Computed in float64 on every device that has it, whatever the dtype of the times.
    """

    clean = 0.0
    first = 1e-3
    terminal = 1.0
