"""Pictures for people: grids of images, and line charts of a run's figures. Drawn with Pillow."""

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
INK, SOFT_INK, GRID = "#1f2937", "#6b7280", "#e5e7eb"


def image_grid(
    images: Tensor, columns: int | None = None, *, padding: int = 2, background: int | float = 1.0
) -> UInt8[Tensor, "height width 3"]:
    """Lay images out in rows, in order, with a border around each.

    Args:
        images: ``[n, c, h, w]`` float in [-1, 1] (values outside are clamped), c = 1 or 3.
        columns: images in a row; by default as many as make the grid about square.
        padding: pixels between images and around the grid.
        background: colour of padding and empty places, -1 (black) to 1 (white).

    Returns:
        The picture, bytes 0..255, for ``save_image``.

    Raises:
        ValueError: for another shape or dtype, no images, NaN, or a number of columns below 1.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0 or not images.is_floating_point():
        raise ValueError(
            f"images must be float [n, 1 or 3, h, w], n at least 1, got {images.dtype} {list(images.shape)}"
        )
    if images.isnan().any():
        raise ValueError("images hold NaN; the model that made them has diverged")
    count, _, height, width = images.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1 or padding < 0:
        raise ValueError(f"columns ({columns}) must be at least 1 and padding ({padding}) not negative")
    rows = math.ceil(count / columns)

    cells = images.new_full((rows * columns, 3, height + padding, width + padding), background, dtype=torch.float32)
    cells[:count, :, padding:, padding:] = images.detach().float()
    grid = (
        cells.view(rows, columns, 3, height + padding, width + padding).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    )
    grid = torch.nn.functional.pad(grid, (0, padding, 0, padding), value=background)
    return ((grid.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu()


def save_image(path: str | Path, picture: Tensor, *, scale: int = 1) -> None:
    """Write a picture, each pixel as a square of ``scale`` x ``scale``. A reader never sees half a file.

    Args:
        path: the ending says the format (png, jpg, webp, bmp, gif); missing folders are made.
        picture: ``[h, w, 3]`` uint8, as from ``image_grid``.
        scale: so that an 8x8 digit can be seen.

    Raises:
        ValueError: for another shape, dtype, scale or file ending.
    """
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != torch.uint8 or picture.numel() == 0:
        raise ValueError(f"picture must be uint8 [h, w, 3], got {picture.dtype} {list(picture.shape)}; see image_grid")
    if scale < 1:
        raise ValueError(f"scale is {scale}; it must be at least 1")
    large = picture.cpu().repeat_interleave(scale, 0).repeat_interleave(scale, 1).contiguous()
    image = Image.frombytes("RGB", (large.shape[1], large.shape[0]), large.numpy().tobytes())
    write_picture(Path(path), image.save)


def line_plot(
    path: str | Path,
    series: Mapping[str, tuple[Sequence[int | float], Sequence[int | float]]],
    title: str,
    *,
    x_label: str = "step",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    smoothing: int = 50,
    size: tuple[int, int] = (880, 480),
) -> None:
    """Draw a line chart: each series lightly as it is, and boldly its moving average.

    Args:
        path: where to write the picture, as in ``save_image``.
        series: x and y values by name. Points that are not finite (or, on a logarithmic axis, not positive) are
            left out.
        title: above the chart.
        x_label: below the x axis.
        y_label: above the y axis.
        log_x: logarithmic x axis, for a few points that were measured: each is marked and named on the axis.
        log_y: logarithmic y axis.
        smoothing: points in the moving average, at most a tenth of the series; 1 for none.
        size: width and height in pixels.

    Raises:
        ValueError: if x and y differ in length, or no point can be drawn.
    """
    points = {name: _drawable(name, *values, log_x=log_x, log_y=log_y) for name, values in series.items()}
    drawn = [point for values in points.values() for point in values]
    if not drawn:
        positive = " positive" if log_x or log_y else ""
        raise ValueError(f"nothing to draw in {list(series)}: there are no finite{positive} values")
    chart = _Chart(size, drawn, log_x, log_y)
    chart.axes(title, x_label, y_label)
    coloured = list(zip(points.values(), COLOURS * len(points), strict=False))
    windows = [min(smoothing, len(values) // 10) for values in points.values()]
    for (values, colour), window in zip(coloured, windows, strict=True):
        if window > 1:
            chart.line(values, _lightened(colour), width=1)
    for (values, colour), window in zip(coloured, windows, strict=True):
        chart.line(_moving_average(values, window) if window > 1 else values, colour, width=2)
        for point in values if log_x else []:
            chart.mark(point, colour)
    chart.legend(list(points) if len(points) > 1 or log_x else [])
    write_picture(Path(path), chart.save)


class _Chart:
    """Maps values to pixels of a supersampled canvas, and draws the parts of a line chart."""

    def __init__(self, size: tuple[int, int], points: Sequence[tuple[float, float]], log_x: bool, log_y: bool) -> None:
        from PIL import Image, ImageDraw

        self.size, self.log_x, self.log_y = size, log_x, log_y
        self.unit = unit = 3  # pixels of the canvas for one of the picture
        self.canvas = Image.new("RGB", (size[0] * unit, size[1] * unit), "white")
        self.draw = ImageDraw.Draw(self.canvas)
        self.left, self.top = 64 * unit, 72 * unit
        self.right, self.bottom = (size[0] - 28) * unit, (size[1] - 56) * unit
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self.x_low, self.x_high = _widened(min(xs), max(xs))
        self.x_ticks = sorted(set(xs)) if log_x else _round_ticks(self.x_low, self.x_high, about=8)
        self.y_ticks = _decades(min(ys), max(ys)) if log_y else _round_ticks(*_widened(min(ys), max(ys)))
        low, high = _widened(min(ys), max(ys))
        self.y_low, self.y_high = min(low, self.y_ticks[0]), max(high, self.y_ticks[-1])

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point, which on a logarithmic axis is already its logarithm."""
        across = (x - self.x_low) / (self.x_high - self.x_low)
        up = (y - self.y_low) / (self.y_high - self.y_low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def text(self, at: tuple[float, float], text: str, anchor: str, *, points: int = 13, ink: str = SOFT_INK) -> float:
        """Write, and return the width of what was written."""
        from PIL import ImageFont

        font = ImageFont.load_default(points * self.unit)
        self.draw.text(at, text, fill=ink, font=font, anchor=anchor)
        return self.draw.textlength(text, font=font)

    def axes(self, title: str, x_label: str, y_label: str) -> None:
        unit = self.unit
        for tick in self.y_ticks:
            _, y = self.place(self.x_low, tick)
            self.draw.line([(self.left, y), (self.right, y)], fill=GRID, width=unit)
            self.text((self.left - 10 * unit, y), _number(10**tick if self.log_y else tick), "rm")
        free = 0.0
        for tick in self.x_ticks:
            x, _ = self.place(tick, self.y_low)
            if self.x_low <= tick <= self.x_high and x >= free:
                self.draw.line([(x, self.bottom), (x, self.bottom + 5 * unit)], fill=SOFT_INK, width=unit)
                self.text((x, self.bottom + 10 * unit), _number(10**tick if self.log_x else tick), "mt")
                free = x + 24 * unit
        self.draw.line([(self.left, self.bottom), (self.right, self.bottom)], fill=SOFT_INK, width=unit)
        self.text((self.left - 40 * unit, 22 * unit), title, "lm", points=18, ink=INK)
        self.text((self.left - 40 * unit, 50 * unit), y_label, "lm")
        self.text(((self.left + self.right) / 2, self.bottom + 30 * unit), x_label, "mt")

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, width: int) -> None:
        pixels = [self.place(*point) for point in points]
        if len(pixels) > 1:
            self.draw.line(pixels, fill=colour, width=width * self.unit, joint="curve")
        elif points:
            self.mark(points[0], colour)

    def mark(self, point: tuple[float, float], colour: str) -> None:
        (x, y), radius = self.place(*point), 3 * self.unit
        self.draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

    def save(self, path: Path) -> None:
        """Write the picture, scaled down to its size so that lines are smooth."""
        self.canvas.reduce(self.unit).save(path)

    def legend(self, names: Sequence[str]) -> None:
        """Names from the right, each behind a dash of its colour."""
        x, y, unit = float(self.right), 50 * self.unit, self.unit
        for name, colour in reversed(list(zip(names, COLOURS * len(names), strict=False))):
            x -= self.text((x, y), name, "rm", ink=INK) + 6 * unit
            self.draw.line([(x - 16 * unit, y), (x, y)], fill=colour, width=3 * unit)
            x -= 34 * unit


def _drawable(
    name: str, xs: Sequence[int | float], ys: Sequence[int | float], *, log_x: bool, log_y: bool
) -> list[tuple[float, float]]:
    """The points that can be drawn; on a logarithmic axis, as logarithms."""
    if len(xs) != len(ys):
        raise ValueError(f"series {name!r} has {len(xs)} x values and {len(ys)} y values; give one y for each x")
    finite = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    positive = [(x, y) for x, y in finite if (x > 0 or not log_x) and (y > 0 or not log_y)]
    return [(math.log10(x) if log_x else x, math.log10(y) if log_y else y) for x, y in positive]


def _moving_average(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Mean of the points around each, over the part of the window that exists."""
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        start, stop = max(0, index - window // 2), min(len(points), index + window // 2 + 1)
        smooth.append((x, (sums[stop] - sums[start]) / (stop - start)))
    return smooth


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range itself, or one around a single value."""
    margin = abs(low) / 2 or 0.5
    return (low, high) if high > low else (low - margin, high + margin)


def _round_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, from just below ``low`` to just above ``high``."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of the ticks of a logarithmic axis: 1, 2 and 5 of a decade, more or fewer by the range."""
    if high - low < 0.5:
        return [math.log10(tick) for tick in _round_ticks(*_widened(10**low, 10**high)) if tick > 0]
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [power + math.log10(factor) for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    inside = [tick for tick in ticks if low - 0.3 <= tick <= high + 0.3]
    return inside[:: math.ceil(len(inside) / 8)]


def _number(value: float) -> str:
    if value and abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:.4g}"


def _lightened(colour: str) -> str:
    channels = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - channel) * 0.3):02x}" for channel in channels)


def write_picture(path: Path, save: Callable[[Path], None]) -> None:
    """Write a picture by a function that takes a path with the same ending. A reader never sees half a file.

    Raises:
        ValueError: for an unknown file ending.
    """
    from PIL import Image

    if path.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{path}: unknown kind of picture; end the name in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        save(temporary)
        os.replace(temporary, path)
