"""Wall time to the accuracy of diffusers' DDIM in 50 steps, on the network of a run.

    python -m benchmarks time_to_accuracy --run runs/ldm-mnist --out runs/performance

Accuracy is the distance to the sample that DDIM makes in all 1,000 steps from the same noise, with guidance at all of
them: root mean square, over the network's own space, latents or pixels. Ours is the cheapest of many solvers, grids,
numbers of steps and guidance intervals whose error is at most that of diffusers, on two sets of noise and classes. Some
of the solvers are fitted to the network, on the first set alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from torch import Tensor

import diffusion_labs as dl
from benchmarks.sampling_start import sampling_start
from benchmarks.speed.machine import prepare
from benchmarks.speed.rounds import interleaved, median, ratio, spread
from benchmarks.speed.section import Claim, Plot, Section, Table
from diffusion_labs.recipes.run import load_run

SOLVERS: dict[str, Callable[..., Any]] = {
    "DPM-Solver++ 2M": dl.DPMSolverPP2MSampler,
    "DPM-Solver++ 3M": dl.DPMSolverPP3MSampler,
    "UniPC 2": partial(dl.UniPCSampler, order=2),
    "UniPC 3": partial(dl.UniPCSampler, order=3),
    "DEIS 2": partial(dl.DEISSampler, order=2),
    "DEIS 3": partial(dl.DEISSampler, order=3),
}
FITTED = {f"fitted {order}": order for order in (4, 6)}  # by order; see FittedSampler
FITTED_GRIDS = ("trailing", "linspace")
MOST_FITTED_STEPS = 12
GRIDS = {"trailing": dl.trailing, "linspace": dl.linspace, "karras": dl.karras, "uniform_log_snr": dl.uniform_log_snr}
INTERVALS = [(0.0, 10.0), (0.1, float("inf")), (0.1, 10.0), (0.3, float("inf")), (0.3, 10.0), (0.3, 3.0)]
EVERYWHERE = (0.0, float("inf"))
SPACINGS = {"leading": "its default", "trailing": "as here by default"}  # of diffusers
THEIR_STEPS = (10, 20, 50, 100)


@dataclass(frozen=True)
class Options:
    """Of the measurement.

    Attributes:
        run: folder of a trained model with classes.
        out: folder for the figures.
        rounds: how many.
        count: samples in each set.
        reference_steps: of DDIM, whose samples are the aim.
        steps: numbers of steps that are tried.
        guidance_scale: of all samples.
        threads: of torch.
        quick: few of everything: to try the benchmark, not for figures.
    """

    run: Path = Path("runs/ldm-mnist")
    out: Path = Path("runs/performance")
    rounds: int = 7
    count: int = 16
    reference_steps: int = 1000
    steps: tuple[int, ...] = (4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 17, 20, 25)
    guidance_scale: float = 2.0
    threads: int = 2
    quick: bool = False


class Choice(NamedTuple):
    """How to sample.

    Attributes:
        solver: its name.
        grid: its name.
        steps: how many.
        interval: ``sigma / alpha`` between which guidance acts.
    """

    solver: str
    grid: str
    steps: int
    interval: tuple[float, float] = EVERYWHERE

    def __str__(self) -> str:
        low, high = self.interval
        guided = "" if self.interval == EVERYWHERE else f", guided from {low:g} to {high:g}"
        return f"{self.solver}, {self.grid}, {self.steps} steps{guided}"


class Replayed(dl.DDIMSampler):
    """DDIM whose points are kept, so that each of many fits need not draw them again."""

    path: list[Tensor]

    def recorded(self, noise: Tensor, conditions: dict[str, Tensor]) -> "Replayed":
        """Draw them."""
        self.path = list(super().generator(noise, None, conditions))
        return self

    def generator(self, *_: Any, **__: Any) -> Iterator[Tensor]:
        """Those of before."""
        yield from self.path


class Problem:
    """A set of noise and classes for the model of a run, and the samples that are the aim.

    Args:
        options: of the measurement.
        first_seed: of the noise.
        fits: the times and weights of the fitted solvers, by choice.

    Raises:
        ValueError: if the model has no classes, or predicts something else than v.
    """

    def __init__(self, options: Options, first_seed: int, fits: "Fits") -> None:
        model, sizes = load_run(options.run)
        sampler = sizes.sampler(model)
        if not sizes.class_names:
            raise ValueError(f"the model of --run ({options.run}) has no classes; give the run of a recipe that has")
        self.model, self.schedule, self.predictor = sampler.model, sampler.schedule, sampler.predictor
        if type(self.predictor) is not dl.VPredictor:
            raise ValueError(f"the model of --run ({options.run}) must predict v, as diffusers is told that it does")
        self.model.guidance_scale = options.guidance_scale
        self.noise, self.conditions = sampling_start(model, sizes, options.count, first_seed=first_seed)
        self.fits = fits
        precise = Replayed(*self.parts, eval_steps=options.reference_steps, progress_bar=False).eval()
        self.model.interval = None
        self.precise = precise.recorded(self.noise, self.conditions)
        self.aim = self.precise.path[-1]

    @property
    def parts(self) -> tuple[Any, dl.Schedule, dl.Predictor]:
        return self.model, self.schedule, self.predictor

    def fit(self, choice: Choice) -> None:
        """Fit a solver to these samples."""
        self.model.interval = None
        options = {"eval_steps": choice.steps, "grid": GRIDS[choice.grid], "order": FITTED[choice.solver]}
        fitted = dl.FittedSampler.fit(self.precise, self.noise, self.conditions, **options)
        self.fits[choice] = fitted.times(), fitted.weights

    def sampler(
        self, solver: Callable[..., Any], grid: Any, steps: int, interval: tuple[float, float] = EVERYWHERE
    ) -> Callable[[], Tensor]:
        """Makes our samples."""
        low, high = interval
        acts = None if interval == EVERYWHERE else dl.GuidanceInterval(self.schedule, low=low, high=high)
        sampler = solver(*self.parts, eval_steps=steps, grid=grid, progress_bar=False).eval()

        def sample() -> Tensor:
            self.model.interval = acts
            return sampler(self.noise, conditional_inputs=self.conditions)

        return sample

    def chosen(self, choice: Choice) -> Callable[[], Tensor]:
        """Makes the samples of a choice."""
        if choice in self.fits:
            times, weights = self.fits[choice]
            fitted = partial(dl.FittedSampler, weights=weights)
            return self.sampler(fitted, dl.at_times(times.tolist()), choice.steps)
        return self.sampler(SOLVERS[choice.solver], GRIDS[choice.grid], choice.steps, choice.interval)

    def diffusers(self, steps: int, spacing: str) -> Callable[[], Tensor]:
        """Makes those of diffusers' DDIM, which is given the guided prediction of this library's adapter."""
        from diffusers import DDIMScheduler

        kept = self.schedule.alpha(torch.arange(1000)).double() ** 2
        betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        scheduler = DDIMScheduler(
            1000,
            trained_betas=betas.tolist(),
            prediction_type="v_prediction",
            clip_sample=self.predictor.clamp is not None,
            timestep_spacing=spacing,
        )

        @torch.no_grad()
        def sample() -> Tensor:
            self.model.interval = None
            scheduler.set_timesteps(steps)
            x = self.noise
            for t in scheduler.timesteps:
                prediction = self.model(x, t.expand(len(x)), self.conditions).prediction
                x = scheduler.step(prediction, t, x, return_dict=False)[0]
            return x

        return sample

    def error(self, sample: Callable[[], Tensor]) -> float:
        """The distance to the aim."""
        return (sample() - self.aim).square().flatten(1).mean(1).sqrt().mean().item()

    def cost(self, choice: Choice) -> float:
        """Passes of the network for each sample: two in a guided step."""
        times = GRIDS[choice.grid](self.schedule, choice.steps)
        level = self.schedule.sigma(times) / self.schedule.alpha(times)
        low, high = choice.interval
        return choice.steps + int(((low < level) & (level <= high)).sum())


Fits = dict[Choice, tuple[Tensor, Any]]


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks time_to_accuracy")
    if options.quick:
        few = {"rounds": 2, "count": 2, "reference_steps": 250, "steps": (25,)}
        options = Options(**{**vars(options), **few})
    prepare(options.threads)
    measure(options).write(options.out, arguments)


def measure(options: Options) -> Section:
    """Measure."""
    fits: Fits = {}
    tuned, tested = Problem(options, 0, fits), Problem(options, 10_000, fits)
    errors = errors_of(tuned, options)
    claims, rows = [], []
    for spacing, what in SPACINGS.items():
        theirs = f"diffusers DDIM, 50 steps, {spacing}"
        best, limit = cheapest(tuned, tested, errors, spacing)
        seconds = interleaved({theirs: tested.diffusers(50, spacing), "ours": tested.chosen(best)}, options.rounds)
        share = ratio(seconds, "ours", theirs)
        question = f"share of the wall time of diffusers' DDIM-50, {spacing} ({what}), at its error or less"
        claims.append(Claim(question, share, 0.2, at_most=True))
        found = tested.error(tested.chosen(best))
        rows.append([theirs, f"{limit:.4f}", f"{median(seconds, theirs):.3f}", "1", "-"])
        spread_of = spread(seconds, "ours", theirs)
        rows.append([f"ours: {best}", f"{found:.4f}", f"{median(seconds, 'ours'):.3f}", f"{share:.3f}", spread_of])

    their_errors = {s: {n: tested.error(tested.diffusers(n, s)) for n in THEIR_STEPS} for s in SPACINGS}
    fewest = {n: min((c for c in errors if c.steps == n), key=lambda c: errors[c]) for n in options.steps}
    return Section(
        "time_to_accuracy",
        "Time to accuracy",
        f"The network of `{options.run.name}`, guidance scale {options.guidance_scale:g}, {options.count} samples. The "
        f"aim is DDIM in {options.reference_steps:,} steps from the same noise; the error is the mean over the samples "
        "of the root mean square distance. Ours is the cheapest of the solvers, grids, numbers of steps and guidance "
        "intervals whose error is at most that of diffusers' DDIM in 50 steps, on two sets of noise; time and error "
        "are those of the second. Fitted solvers are `FittedSampler`, whose weights are fitted to the first set. Both "
        "call the same network with the same guidance adapter. Decoding of latents is not in the times.",
        claims,
        [
            Table("To the error of DDIM-50", ["", "error", "seconds", "share", "quartiles"], rows),
            Table(
                "The best of each number of steps, on the first set",
                ["steps", "solver, grid and guidance", "passes a sample", "error"],
                [[str(n), str(c), f"{tuned.cost(c):g}", f"{errors[c]:.4f}"] for n, c in fewest.items()],
            ),
            Table(
                "diffusers' DDIM, on the second set",
                ["steps", *SPACINGS],
                [[str(n), *(f"{their_errors[s][n]:.4f}" for s in SPACINGS)] for n in THEIR_STEPS],
            ),
        ],
        [
            Plot(
                "Error against passes of the network",
                "passes a sample",
                "error",
                {
                    "diffusion_labs": sorted([tuned.cost(c), errors[c]] for c in frontier(tuned, errors)),
                    **{f"diffusers, DDIM, {s}": [[2 * n, e] for n, e in their_errors[s].items()] for s in SPACINGS},
                },
                log="xy",
            )
        ],
    )


def cheapest(tuned: Problem, tested: Problem, errors: dict[Choice, float], spacing: str) -> tuple[Choice, float]:
    """The cheapest choice with at most the error of diffusers' DDIM-50 on both sets, and that error on the second.

    Raises:
        ValueError: if there is none.
    """
    limits = [problem.error(problem.diffusers(50, spacing)) for problem in (tuned, tested)]
    reach = sorted((c for c in errors if errors[c] <= limits[0]), key=lambda c: (tuned.cost(c), errors[c]))
    for choice in reach:
        if tested.error(tested.chosen(choice)) <= limits[1]:
            return choice, limits[1]
    raise ValueError(f"no choice has the error of diffusers' DDIM-50, {spacing}, {limits}; give more --steps")


def errors_of(problem: Problem, options: Options) -> dict[Choice, float]:
    """All solvers and grids with guidance everywhere, the best two of each number of steps in intervals, and fits."""
    errors = {}
    for steps in options.steps:
        plain = [Choice(solver, grid, steps) for solver, grid in product(SOLVERS, GRIDS)]
        errors |= {choice: problem.error(problem.chosen(choice)) for choice in plain}
        best = sorted(plain, key=lambda choice: errors[choice])[:2]
        within = [choice._replace(interval=interval) for choice in best for interval in INTERVALS]
        errors |= {choice: problem.error(problem.chosen(choice)) for choice in within}
        if steps <= MOST_FITTED_STEPS:
            fitted = [Choice(solver, grid, steps) for solver, grid in product(FITTED, FITTED_GRIDS)]
            for choice in fitted:
                problem.fit(choice)
            errors |= {choice: problem.error(problem.chosen(choice)) for choice in fitted}
    return errors


def frontier(problem: Problem, errors: dict[Choice, float]) -> list[Choice]:
    """The choices of which none is cheaper and more exact."""
    kept: list[Choice] = []
    for choice in sorted(errors, key=lambda choice: (problem.cost(choice), errors[choice])):
        if not kept or errors[choice] < errors[kept[-1]]:
            kept.append(choice)
    return kept
