"""What is wrong with a choice of schedule, predictor, grid and sampler."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch

from diffusion_labs.models.ideal import IdealDenoiser
from diffusion_labs.predictors.predictor import Predictor
from diffusion_labs.predictors.target_predictor import TargetPredictor
from diffusion_labs.samplers.grids import Grid, default_grid, karras
from diffusion_labs.samplers.sampler import Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel
from diffusion_labs.schedules.schedule import Schedule

SIGNAL = (1e-3, 0.03)  # alpha / sigma at the start that is worth a note, and a warning
AMPLIFICATION = 1e3  # of an error in x0 that is worth a warning: one of half precision is as large as the data
SPREAD = (2 / 3, 3 / 2)  # of samples, of data whose spread is 1, beyond which it is worth a warning


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        name: which, in a word or two.
        severity: "error" (cannot work), "warning" (will be seen in the samples) or "note" (good to know).
        message: what, with the number that was measured.
        remedy: what to do.
    """

    name: str
    severity: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.message}. {self.remedy}"


def lint(
    schedule: Schedule,
    predictor: Predictor | Callable[[Schedule], Predictor],
    *,
    eval_steps: int | None = None,
    grid: Grid | None = None,
    sampler: Callable[..., Sampler] | None = None,
) -> list[Finding]:
    """Say what is wrong with a choice, with numbers; nothing is raised. Sizes are for data of unit scale.

    Args:
        schedule: the process.
        predictor: what the network predicts; or what makes it, such as the class ``NoisePredictor``, since a
            predictor that is undefined on the schedule cannot be made.
        eval_steps: as the sampler's, as in ``lint(s.schedule, s.predictor, eval_steps=s.eval_steps, grid=s.grid)``.
        grid: as the sampler's.
        sampler: its class, or what makes it: then it samples, in closed form, data whose spread is known.

    Returns:
        The findings, the worst first; empty if there are none.

    Example:
        >>> print(*lint(schedule, NoisePredictor, eval_steps=50, grid=leading), sep="\\n")
        >>> print(*lint(schedule, VPredictor, eval_steps=16, sampler=HeunSampler), sep="\\n")
    """
    grid = default_grid(schedule) if grid is None else grid
    findings = [
        *_terminal(schedule),
        *_predictor(schedule, predictor),
        *_float32(schedule),
        *(_grid(schedule, eval_steps, grid) or _sampler(schedule, eval_steps, grid, sampler)),
    ]
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _terminal(schedule: Schedule) -> list[Finding]:
    """Signal at the last time, though sampling starts from noise alone (arXiv 2305.08891, Sec. 3.1)."""
    level = _level(schedule, schedule.terminal)
    signal = float(level.alpha / level.sigma)
    note, warning = SIGNAL
    if signal <= note:
        return []
    return [
        Finding(
            "terminal SNR",
            "warning" if signal > warning else "note",
            f"alpha at the last time ({schedule.terminal:g}) is {level.alpha:.3g} and sigma {level.sigma:.3g}: in "
            f"training the network has seen {100 * signal:.2g} % as much signal as noise there, and sampling starts "
            "from none (arXiv 2305.08891)",
            "Train with more noise at the end: rescale_zero_terminal_snr(betas) and v prediction, or a larger "
            "sigma_max",
        )
    ]


def _predictor(schedule: Schedule, predictor: Predictor | Callable[[Schedule], Predictor]) -> list[Finding]:
    if not isinstance(predictor, Predictor):
        try:
            predictor = predictor(schedule)
        except ValueError as error:
            return [
                Finding(
                    "undefined prediction",
                    "error",
                    str(error),
                    "Take VPredictor, FlowPredictor or TargetPredictor, and train with it",
                )
            ]
    if predictor.schedule is not schedule:
        return [
            Finding(
                "another schedule",
                "error",
                f"the predictor has another {type(predictor.schedule).__name__} than the one given",
                "Give both the same object",
            )
        ]
    level = _level(schedule, schedule.terminal)
    a, b = predictor.coefficients(level.alpha, level.sigma)
    amplification = abs(float(level.sigma / predictor.det(level))) * math.hypot(float(a), float(b))
    if amplification <= AMPLIFICATION or predictor.clamp is not None:
        return []
    return [
        Finding(
            "amplified error",
            "warning",
            f"at the last time ({schedule.terminal:g}) a relative error of the network's output, 0.001 in half "
            f"precision, is {amplification:.3g} times as large in {type(predictor).__name__}'s estimate of the data",
            "Predict v or the clean data, or give the predictor a clamp",
        )
    ]


def _float32(schedule: Schedule) -> list[Finding]:
    """Steps that the table alpha^2 / (alpha^2 + sigma^2), alphas_cumprod in other libraries, merges in float32."""
    span = schedule.terminal - schedule.first
    count = round(span / schedule.resolution) + 1 if schedule.resolution else 1000
    times = torch.linspace(schedule.first, schedule.terminal, count, dtype=torch.float64, device="cpu")
    table = schedule.log_snr(times).sigmoid().float()
    lost = int((table.diff() >= 0).sum())
    if lost == 0:
        return []
    return [
        Finding(
            "float32 table",
            "warning",
            f"alpha^2 of {lost} of {count} times is in float32 that of the time before, so their noise is one",
            "Keep tables of the schedule in float64, as here, or export log_snr; or take larger first betas",
        )
    ]


def _grid(schedule: Schedule, eval_steps: int | None, grid: Grid) -> list[Finding]:
    if eval_steps is None:
        return []  # every step, the last included
    if eval_steps < 1:
        return [Finding("grid", "error", f"eval_steps ({eval_steps}) is not at least 1", "Give more steps")]
    name = getattr(grid, "__name__", "the grid")
    try:
        times = grid(schedule, eval_steps)
    except ValueError as error:
        return [Finding("grid", "error", str(error), "Give another grid or eval_steps")]
    if bool((times.diff() >= 0).any()) or times[0] > schedule.terminal or times[-1] <= schedule.clean:
        return [
            Finding(
                "grid",
                "error",
                f"{name} with eval_steps={eval_steps} does not give strictly decreasing times in "
                f"({schedule.clean:g}, {schedule.terminal:g}]",
                "Give fewer steps, or another grid",
            )
        ]
    start = float(times[0])
    if start == schedule.terminal:
        return []
    level, last = _level(schedule, start), _level(schedule, schedule.terminal)
    return [
        Finding(
            "last time",
            "warning",
            f"{name} with eval_steps={eval_steps} starts at {start:g} and never reaches the last time "
            f"({schedule.terminal:g}): the network is told of {100 * level.alpha / level.sigma:.3g} % signal to "
            f"noise where there is none (at the last time: {100 * last.alpha / last.sigma:.3g} %)",
            "Take trailing, or another grid that includes the last time",
        )
    ]


def _sampler(
    schedule: Schedule, eval_steps: int | None, grid: Grid, sampler: Callable[..., Sampler] | None
) -> list[Finding]:
    """Steps over which a solver is far from the truth, where every estimate is right.

    Heun's method, for one, takes eps as linear in sigma / alpha. Over a step in which that falls r times, the mean of
    two estimates of the data is ``x0_t + (r - 1) / 2 (x0_s - x0_t)``: where r is thousands, far beyond both. And a last
    estimate at much noise is nearly the mean of the data: samples then have too little spread.
    """
    if sampler is None:
        return []
    schedule = copy.deepcopy(schedule).cpu()
    predictor = TargetPredictor(schedule)
    generator = torch.Generator().manual_seed(0)
    data = IdealDenoiser(predictor, torch.zeros(1, 16), 1.0)
    try:
        made = sampler(data, schedule, predictor, eval_steps=eval_steps, grid=grid, progress_bar=False).eval()
    except ValueError as error:
        return [Finding("sampler", "error", str(error), "Take another sampler, or give it other arguments")]
    spread = float(made(schedule.sample_prior((256, 16), generator).double(), generator=generator).std())
    least, most = SPREAD
    if least <= spread <= most:
        return []
    found = (
        f"{type(made).__name__} with eval_steps={eval_steps} makes samples of a spread of {spread:.3g} where that of "
        "the data is 1 and all estimates are right"
    )
    levels = schedule.levels(made.times())
    ratio = levels[-1].sigma / levels[-1].alpha if levels[-1].alpha > 0 else math.inf
    other = "" if grid is karras else ", such as karras"
    if spread < least:
        return [
            Finding(
                "lost spread",
                "warning",
                f"{found}: its steps are few, or badly placed, and the last estimate is made of {ratio:.3g} times as "
                "much noise as signal",
                f"Take more steps, or a grid with more of them at little noise{other}",
            )
        ]
    ratios = [(float(t.sigma / t.alpha), float(s.sigma / s.alpha)) for t, s in pairwise(levels) if t.alpha > 0]
    before, after = max(ratios, key=lambda ratio: ratio[0] / ratio[1], default=(math.inf, math.inf))
    return [
        Finding(
            "long step",
            "warning",
            f"{found}: a step goes from {before:.3g} times as much noise as signal to {after:.3g}, over which it "
            "extrapolates",
            f"Take a grid without such steps{other}, more steps, or a sampler such as DPMSolverPP2MSampler",
        )
    ]


def _level(schedule: Schedule, t: float) -> NoiseLevel:
    return schedule.levels(torch.tensor([t], dtype=torch.float64, device="cpu"))[0]
