"""The loop from noise to data that every sampler shares."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs, check_output, for_sampling
from diffusion_labs.keeping import Memory, call_with, in_steps
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.randomness import Generators, KeyedGenerator, check_generators, of_draw, randn_like
from diffusion_labs.samplers.brownian import BrownianNoise
from diffusion_labs.samplers.grids import Grid, default_grid, grid_times
from diffusion_labs.schedules.noise_level import NoiseLevel
from diffusion_labs.schedules.schedule import Schedule


class Estimate(NamedTuple):
    """What one call of the network says at a noise level; ``xt = alpha * x0 + sigma * eps``.

    A step is written in x0 and eps, not in x_t: guidance that leaves the noise alone (CFG++) returns the pair of
    another x_t, and is then right in every sampler.
    """

    x0: Tensor
    eps: Tensor
    variance_value: Tensor | None


Denoise = Callable[[Tensor, NoiseLevel], Estimate]
NoiseSource = Callable[[Tensor, NoiseLevel | None, NoiseLevel | None], Tensor]
Way = tuple[NoiseLevel, NoiseLevel | None]  # from and to; to clean data if None
Noise = Callable[..., Tensor]  # noise(t, s): of the way from t to s; noise(): for any other use


class SamplerOptions(TypedDict, total=False):
    """The keyword arguments that all samplers take; see ``Sampler``."""

    eval_steps: int | None
    grid: Grid | None
    progress_bar: bool


class Sampler(nn.Module):
    """Base class: one call of the model in train mode, the whole way from noise to data in eval mode.

    A new sampler writes ``step``. The base owns the grid of times, the loop, the random numbers and
    the last step, to clean data, which is the estimate: no noise is left in a sample.

    Args:
        model: network, or stack of adapters around one.
        schedule: the process.
        predictor: what the model predicts, for the same schedule.
        eval_steps: calls of the model in eval mode (samplers may make several a step); every step of
            a discrete schedule if ``None``; ``grid`` is then not used.
        grid: places the calls: ``trailing``, ``leading``, ``linspace`` or a function like them; ``default_grid`` of
            the schedule if ``None``.
        progress_bar: show the progress of eval mode.

    Raises:
        TypeError: if a schedule, predictor or grid is something else.
        ValueError: if ``predictor`` has another schedule, or the grid is not strictly decreasing
            within the schedule.

    Example:
        >>> sampler = DDIMSampler(model, schedule, predictor, eval_steps=50).eval()
        >>> noise = schedule.sample_prior((16, 1, 32, 32), seeded(range(16)))
        >>> images = sampler(noise, conditional_inputs={"class": labels})
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        predictor: Predictor,
        *,
        eval_steps: int | None = None,
        grid: Grid | None = None,
        progress_bar: bool = True,
    ) -> None:
        super().__init__()
        for name, value, kind in (("schedule", schedule, Schedule), ("predictor", predictor, Predictor)):
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} is a {type(value).__name__}; give model, schedule and predictor, in this order"
                )
        if predictor.schedule is not schedule:
            raise ValueError("the predictor has another schedule than the sampler; give both the same object")
        if grid is not None and not callable(grid):
            raise TypeError(f"grid is {grid!r}; give the function, such as diffusion_labs.karras")
        self.model = model
        self.schedule = schedule
        self.predictor = predictor
        self.eval_steps = eval_steps
        self.grid = default_grid(schedule) if grid is None else grid
        self.progress_bar = progress_bar
        self.times()

    def step(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """Go from x_t to x_s, where s is the next, lower noise level, never that of clean data.

        Args:
            xt: ``[b, c, ...]``.
            t: the noise level of ``xt``.
            s: the noise level to go to.
            past: what the step before returned beside x_s; ``None`` at the first. A multi-step
                solver keeps its history here, and nowhere else.
            denoise: ``denoise(x, level)`` calls the network and returns an ``Estimate``.
            noise: ``noise(t, s)`` draws standard normal noise like ``xt`` for the way from t to s, ``noise()`` for any
                other use. Each call is independent, unless the caller chose ``BrownianNoise``: then what
                ``noise(t, s)`` adds is that of one path, whatever the grid.

        Returns:
            x_s and the new ``past``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step")

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | None = None,
        conditional_inputs: ConditionalInputs | None = None,
        *,
        generator: Generators | KeyedGenerator | NoiseSource = None,
        start: float | None = None,
    ) -> DiffusionOutput | Tensor:
        """One call of the model in train mode, a finished sample in eval mode.

        Args:
            x: noisy data ``[b, c, ...]``: at ``timestep`` in train mode, from ``schedule.sample_prior``
                in eval mode.
            timestep: the time of each sample, ``[b]``; not used in eval mode.
            conditional_inputs: tensors by name, passed to the model.
            generator: random numbers of eval mode: one generator, one per sample (``seeded``), a ``KeyedGenerator``,
                which also ``torch.compile`` takes, or ``BrownianNoise``.
            start: eval mode begins at this time, with x noised to it, instead of the last one.

        Returns:
            A ``DiffusionOutput`` in train mode; the sample, ``[b, c, ...]``, in eval mode.

        Raises:
            TypeError: if the model returns something else than a ``DiffusionOutput``.
            ValueError: if its prediction has another shape than x.
        """
        check_tensors(x, timestep)
        if self.training:
            if timestep is None:
                raise ValueError("timestep is needed in train mode; call .eval() to sample")
            return self.train_step(x, timestep, conditional_inputs)
        sample = x
        with torch.no_grad():  # once, not at each step, as for the caller of ``generator``
            for sample in self._path(x, conditional_inputs, generator, start):  # noqa: B007
                pass
        return sample

    def train_step(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """The model's output at one time."""
        output: DiffusionOutput = self.model(x, timestep, conditional_inputs)
        check_output(output, x, self.model)
        return output

    @torch.no_grad()
    def generator(
        self,
        x: Tensor,
        timestep: Tensor | None = None,
        conditional_inputs: ConditionalInputs | None = None,
        *,
        generator: Generators | KeyedGenerator | NoiseSource = None,
        start: float | None = None,
    ) -> Iterator[Tensor]:
        """Yield x after each step of eval mode; the last is the sample. Arguments as ``forward``'s.

        Raises:
            ValueError: in train mode.
        """
        check_eval_mode(self)
        yield from self._path(x, conditional_inputs, generator, start)

    def _path(
        self,
        x: Tensor,
        conditional_inputs: ConditionalInputs | None,
        generator: Generators | KeyedGenerator | NoiseSource,
        start: float | None,
    ) -> Iterator[Tensor]:
        source = generator.from_its_start() if isinstance(generator, BrownianNoise) else generator
        if not callable(source):  # also where no step draws
            check_generators(source, len(x))
        draws = count()

        def noise(t: NoiseLevel | None = None, s: NoiseLevel | None = None) -> Tensor:
            return source(x, t, s) if callable(source) else randn_like(x, of_draw(next(draws), source))

        times = self.schedule.on(x.device, self.times(start))
        levels = self.schedule.levels(times)
        denoise = self.denoiser(conditional_inputs, levels, in_steps(times[:, None].expand(-1, len(x))))
        past = None
        for t, s in self._shown([*pairwise(levels), (levels[-1], None)]):
            if s is None:
                x = self.last_step(x, t, past, denoise)
            else:
                step = self.step_to_last if s is levels[-1] else self.step
                x, past = step(x, t, s, past, denoise, noise)
            yield x

    def step_to_last(
        self, xt: Tensor, t: NoiseLevel, s: NoiseLevel, past: Any, denoise: Denoise, noise: Noise
    ) -> tuple[Tensor, Any]:
        """The step to the last noise level, where the estimate is the sample; a child may go there with more care."""
        return self.step(xt, t, s, past, denoise, noise)

    def last_step(self, xt: Tensor, t: NoiseLevel, past: Any, denoise: Denoise) -> Tensor:
        """From the last noise level to clean data: the estimate. A child may go on with its history instead."""
        return denoise(xt, t).x0

    def denoise(self, xt: Tensor, level: NoiseLevel, conditional_inputs: ConditionalInputs | None = None) -> Estimate:
        """Call the model on x_t and estimate the clean data and the noise."""
        return self.denoiser(conditional_inputs)(xt, level)

    def denoiser(
        self,
        conditional_inputs: ConditionalInputs | None = None,
        levels: Sequence[NoiseLevel] = (),
        times: Iterable[Tensor] = (),
    ) -> Denoise:
        """The function ``denoise(xt, level)`` of a whole loop: what its calls share is looked up and made once, here.

        Args:
            conditional_inputs: tensors by name, passed to the model in every call.
            levels: noise levels that are known already.
            times: theirs, for each sample: ``[b]``.
        """
        model, predictor = for_sampling(self.model), self.predictor
        memory: Memory = {}
        known = {level.t: time for level, time in zip(levels, times, strict=True)}

        def denoise(xt: Tensor, level: NoiseLevel) -> Estimate:
            time = known.get(level.t)
            time = level.t.expand(xt.shape[0]) if time is None else time
            output = call_with(memory, model, xt, time, conditional_inputs)
            check_output(output, xt, model)
            x0, eps = predictor.denoise_at(output.prediction, xt, level)
            if output.renoise_prediction is not None:
                eps = predictor.denoise_at(output.renoise_prediction, xt, level).eps
            return Estimate(x0, eps, output.variance_value)

        return denoise

    def times(self, start: float | None = None) -> Tensor:
        """The times of the calls of the model, strictly decreasing, from ``start`` or the last time."""
        return grid_times(self.schedule, self.grid, id(self.grid), self.eval_steps, start)

    def _shown(self, steps: list[Way]) -> Iterable[Way]:
        """The steps, with a bar that moves as they are taken; a graph has none."""
        if not self.progress_bar or torch.compiler.is_compiling():
            return steps
        from tqdm.auto import tqdm  # not needed to import the library

        shown: Iterable[Way] = tqdm(steps, desc=type(self).__name__, leave=False)
        return shown


def check_tensors(x: Tensor, timestep: Tensor | None) -> None:
    """Raise a ``TypeError`` for what is given in the place of noise or time, such as a text."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"x is a {type(x).__name__}, not a tensor of noise; draw it by sample_prior, and give texts and classes as "
            "conditional_inputs={name: ...}"
        )
    if timestep is not None and not isinstance(timestep, Tensor):
        raise TypeError(
            f"timestep is a {type(timestep).__name__}, not a tensor; give conditional_inputs by name or third"
        )


def check_eval_mode(sampler: Sampler) -> None:
    """Raise a ``ValueError`` in train mode, in which dropout would be on, conditions dropped, and guidance off."""
    if sampler.training:
        raise ValueError(f"{type(sampler).__name__} is in train mode; call .eval() first")
