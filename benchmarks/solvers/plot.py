"""The picture: error against calls, the best of each library, one panel a problem."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.solvers.measure import LIBRARIES, Run
from benchmarks.solvers.report import PROCESS_NAMES, budgets, columns, least, problems

# Okabe and Ito's colours, told apart by all kinds of colour vision; also by line and marker
STYLES = {
    "diffusion_labs": {"color": "#D55E00", "marker": "o", "linestyle": "-", "linewidth": 2.4, "zorder": 5},
    "diffusers": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    "k-diffusion": {"color": "#009E73", "marker": "^", "linestyle": "-."},
    "azula": {"color": "#000000", "marker": "D", "linestyle": ":"},
}


def draw(runs: Sequence[Run], path: Path) -> None:
    """Write the picture as SVG, the same for the same runs."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "solvers", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import NullLocator

    panels, calls = problems(runs), budgets(runs)
    width = math.ceil(len(panels) / 2)
    figure, axes = pyplot.subplots(2, width, figsize=(4.2 * width, 7.4), squeeze=False, layout="constrained")
    order = sorted(panels, key=lambda panel: panel[1])  # a row for each set of data
    for axis, (process, mixture) in zip(axes.flat, order, strict=False):
        here = [run for run in runs if (run.process, run.mixture) == (process, mixture)]
        ends = {}
        for library in LIBRARIES:
            best = [least(run for run in here if (run.library, run.budget) == (library, n)) for n in calls]
            points = [(n, run.error) for n, run in zip(calls, best, strict=True) if run]
            if points:
                axis.plot(*zip(*points, strict=True), markersize=4, **STYLES[library])
                ends[library] = points[-1]
        axis.set(xscale="log", yscale="log", title=f"{PROCESS_NAMES[process]}, {mixture}")
        label_ends(axis, ends)
        axis.set_xticks(columns(runs), labels=[str(n) for n in columns(runs)])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_xlim(calls[0] * 0.93, calls[-1] * (calls[-1] / calls[0]) ** 0.4)  # room for the names
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("calls of the network")
    figure.supylabel("error of the best solver and grid of each library")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def label_ends(axis: Any, ends: dict[str, tuple[int, float]]) -> None:
    """A library's name at the end of its line, moved apart where lines end together."""
    low, high = (math.log10(limit) for limit in axis.get_ylim())
    apart, above = 0.055 * (high - low), math.inf
    for library, (calls, error) in sorted(ends.items(), key=lambda item: -item[1][1]):
        above = min(math.log10(error), above - apart)
        weight = "bold" if library == LIBRARIES[0] else "normal"
        style = {"color": STYLES[library]["color"], "fontweight": weight, "verticalalignment": "center"}
        axis.text(calls * 1.12, 10**above, library, **style)
    axis.set_ylim(10 ** min(low, above - apart), 10**high)
