"""Picture grids and charts: every pixel where it belongs, and files that are whole or not there."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_labs.images import COLOURS, image_grid, line_plot, save_image


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB")))


@pytest.mark.parametrize(("count", "columns", "padding"), [(6, 3, 2), (7, 3, 1), (1, 4, 0), (5, None, 2)])
def test_grid_places_each_image(count, columns, padding):
    values = torch.randint(0, 256, (count, 3, 4, 5))
    grid = image_grid(values / 127.5 - 1, columns, padding=padding)
    columns = columns or 3
    rows = -(-count // columns)
    assert grid.shape == (rows * (4 + padding) + padding, columns * (5 + padding) + padding, 3)
    covered = torch.zeros(grid.shape[:2], dtype=torch.bool)
    for index in range(count):
        top = padding + index // columns * (4 + padding)
        left = padding + index % columns * (5 + padding)
        covered[top : top + 4, left : left + 5] = True
        assert torch.equal(grid[top : top + 4, left : left + 5], values[index].permute(1, 2, 0).byte())
    assert (grid[~covered] == 255).all()


def test_grid_of_grey_images_clamps():
    grid = image_grid(torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0]).view(1, 1, 1, 5), padding=0)
    assert grid[0].tolist() == [[value] * 3 for value in (0, 0, 128, 255, 255)]
    assert image_grid(torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16), padding=1, background=-1)[0, 0].tolist() == [0] * 3


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 2, 4, 4), torch.zeros(0, 3, 4, 4), torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4).byte()],
)
def test_grid_of_wrong_shapes(images):
    with pytest.raises(ValueError, match=r"images must be float \[n, 1 or 3, h, w\]"):
        image_grid(images)


def test_grid_faults():
    with pytest.raises(ValueError, match="NaN"):
        image_grid(torch.full((1, 1, 2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"columns \(0\)"):
        image_grid(torch.zeros(1, 1, 2, 2), 0)


def test_save_scales_by_whole_pixels(tmp_path):
    picture = torch.randint(0, 256, (3, 4, 3), dtype=torch.uint8)
    path = tmp_path / "new" / "a.png"
    save_image(path, picture, scale=3)
    assert torch.equal(pixels(path)[1::3, 1::3], picture)
    assert torch.equal(pixels(path), picture.repeat_interleave(3, 0).repeat_interleave(3, 1))
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_save_faults_leave_the_old_file(tmp_path):
    picture = torch.zeros(2, 2, 3, dtype=torch.uint8)
    path = tmp_path / "a.png"
    save_image(path, picture)
    before = path.read_bytes()
    for wrong, message in ((picture[..., :2], "uint8"), (picture.float(), "uint8")):
        with pytest.raises(ValueError, match=message):
            save_image(path, wrong)
    with pytest.raises(ValueError, match="scale is 0"):
        save_image(path, picture, scale=0)
    with pytest.raises(ValueError, match=r"unknown kind of picture; end the name in \.png"):
        save_image(tmp_path / "a.picture", picture)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def dark_blue(picture):
    """Where the chart's first line is."""
    red, _, blue = picture.int().unbind(-1)
    return (blue > 180) & (red < 90)


@pytest.mark.parametrize("log_y", [False, True])
def test_line_is_where_its_points_are(tmp_path, log_y):
    ys = [10.0**-step for step in range(4)] if log_y else [3.0, 2.0, 1.0, 0.0]
    line_plot(tmp_path / "a.png", {"loss": ([0, 1, 2, 3], ys)}, "Loss", log_y=log_y, size=(400, 300))
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (300, 400, 3)
    rows, columns = dark_blue(picture).nonzero().double().unbind(1)
    assert columns.max() - columns.min() > 250
    correlation = torch.corrcoef(torch.stack([rows, columns]))[0, 1]
    assert correlation > 0.999  # both are straight lines downwards


def test_points_that_cannot_be_drawn_are_left_out(tmp_path):
    nan, infinity = float("nan"), float("inf")
    line_plot(tmp_path / "a.png", {"loss": ([0, 1, 2, 3], [1.0, nan, infinity, 0.5])}, "Loss")
    line_plot(tmp_path / "b.png", {"loss": ([0, 3], [1.0, 0.5])}, "Loss")
    assert torch.equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    with pytest.raises(ValueError, match="no finite positive values"):
        line_plot(tmp_path / "c.png", {"loss": ([0, 1], [0.0, -1.0])}, "Loss", log_y=True)
    with pytest.raises(ValueError, match="'loss' has 1 x values and 2 y values"):
        line_plot(tmp_path / "c.png", {"loss": ([0], [0.0, 1.0])}, "Loss")


def test_smoothing_draws_the_mean(tmp_path):
    ys = [step % 2 for step in range(1000)]
    line_plot(tmp_path / "a.png", {"loss": (range(1000), ys)}, "Loss", size=(400, 300))
    rows = dark_blue(pixels(tmp_path / "a.png")).nonzero()[:, 0]
    assert rows.max() - rows.min() < 12


@pytest.mark.parametrize("ys", [[0.0], [5.0, 5.0, 5.0], [1e-9, 1e9], [-1e6, 1e6], [1e5, 1.0001e5]])
@pytest.mark.parametrize("log_y", [False, True])
def test_any_range_can_be_drawn(tmp_path, ys, log_y):
    line_plot(tmp_path / "a.png", {"one": (range(len(ys)), ys), "two": ([0], [1.0])}, "Range", log_y=log_y)
    below_legend = pixels(tmp_path / "a.png")[60:]
    assert dark_blue(below_legend).any() == (not log_y or max(ys) > 0)


def test_measured_points_are_marked_at_equal_distances_for_equal_ratios_and_named(tmp_path):
    file = tmp_path / "plot.png"
    line_plot(file, {"ddim": ([2, 4, 8, 16], [1.0, 1, 1, 1])}, "Error", log_x=True, log_y=True, smoothing=1)
    colour = [int(COLOURS[0][start : start + 2], 16) for start in (1, 3, 5)]
    drawn = (np.array(Image.open(file)).astype(int) == colour).all(axis=2)
    assert drawn[:70].any()  # the legend, though there is one line
    (marked,) = np.nonzero(drawn[72:].sum(axis=0) >= 5)
    places = [group.mean() for group in np.split(marked, np.nonzero(np.diff(marked) > 1)[0] + 1)]
    assert len(places) == 4
    assert np.ptp(np.diff(places)) <= 1
    with pytest.raises(ValueError, match="no finite positive values"):
        line_plot(file, {"ddim": ([0], [1.0])}, "Error", log_x=True)
