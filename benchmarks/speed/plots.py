"""The pictures of the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.section import Plot

OURS, OTHERS = "#D55E00", ("#0072B2", "#009E73", "#000000", "#CC79A7", "#56B4E9")  # told apart by all kinds of vision
MARKERS = "os^Dv<"


def draw(plot: Plot, path: Path) -> None:
    """Write a picture as SVG, the same for the same figures."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "performance", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    numbers = {name: value for name, value in plot.series.items() if not isinstance(value, Sequence)}
    height = 0.7 + 0.28 * len(numbers) if numbers else 3.4
    figure, axis = pyplot.subplots(figsize=(7.0, height), layout="constrained")
    if numbers:
        bars(axis, numbers, plot)
    else:
        lines(axis, plot)
    axis.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axis.grid(color="#dddddd", linewidth=0.6, axis="x" if numbers else "both")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def bars(axis: Any, numbers: Mapping[str, float], plot: Plot) -> None:
    """A bar for each name, from the top."""
    names = list(numbers)[::-1]
    colours = [OURS if name.startswith("diffusion_labs") else OTHERS[0] for name in names]
    marks = axis.barh(names, [numbers[name] for name in names], color=colours, height=0.7)
    axis.bar_label(marks, fmt="{:.3g}", padding=3)
    axis.margins(x=0.12)
    if plot.line is not None:
        axis.axvline(plot.line, color="#000000", linestyle="--", linewidth=1)


def lines(axis: Any, plot: Plot) -> None:
    """A line for each name."""
    others = iter(OTHERS)
    for marker, (name, points) in zip(MARKERS, plot.series.items(), strict=False):
        colour = OURS if name.startswith("diffusion_labs") else next(others)
        axis.plot(*zip(*points, strict=True), marker=marker, markersize=4, color=colour, label=name)
    axis.set(
        xscale="log" if "x" in plot.log else "linear",
        yscale="log" if "y" in plot.log else "linear",
    )
    if plot.log == "x":
        axis.set_ylim(bottom=0)
    if plot.line is not None:
        axis.axhline(plot.line, color="#000000", linestyle="--", linewidth=1)
    axis.legend(frameon=False)
