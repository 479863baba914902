"""What the playground draws, without its page."""

import re
import threading
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy
import pytest
import torch

from diffusion_labs.playground.code import KNOWN, python_of
from diffusion_labs.playground.convergence import errors, last
from diffusion_labs.playground.painting import Subject, distance, paint
from diffusion_labs.playground.pictures import kept, known_of, plot, shown
from diffusion_labs.playground.request import Request
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.known import Known
from diffusion_labs.recipes.variants import shared_copy

QUICK = Request(class_name="one", steps=3, count=2, seed=5)


@pytest.mark.parametrize("name", ["pixels", "latents"])
@pytest.mark.parametrize(("sampler", "grid"), [("ddim", "trailing"), ("ddpm", "trailing"), ("heun", "karras")])
def test_the_code_of_a_picture_makes_it_to_the_bit(
    name: str, sampler: str, grid: str, request: pytest.FixtureRequest, tmp_path, monkeypatch
) -> None:
    subject = request.getfixturevalue(name)
    asked = replace(QUICK, sampler=sampler, grid=grid)
    monkeypatch.chdir(tmp_path)
    made: dict[str, torch.Tensor] = {}
    exec(python_of(subject.source, asked), made)
    assert torch.equal(made["images"], last(subject, asked))
    assert (tmp_path / "pictures.png").is_file()
    assert made["images"].std() > 0.01


def test_the_code_of_a_picture_guides_the_prior(chain: Subject, tmp_path, monkeypatch) -> None:
    asked = Request(prompt="one", steps=2, count=1, prior_guidance_scale=3.0)
    monkeypatch.chdir(tmp_path)
    made: dict[str, torch.Tensor] = {}
    exec(python_of(chain.source, asked), made)
    assert torch.equal(made["images"], last(chain, asked))
    assert distance(made["images"], last(chain, replace(asked, prior_guidance_scale=0.0))) > 1e-4


@pytest.mark.parametrize("name", ["pixels", "latents"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_code_of_an_inpainted_picture_makes_it_to_the_bit(
    name: str, sampler: str, request: pytest.FixtureRequest, tmp_path, monkeypatch
) -> None:
    subject = request.getfixturevalue(name)
    channels, height, width = subject.sizes.image_shape
    layer = numpy.zeros((height, width, 4), dtype=numpy.uint8)
    layer[: height // 2, :, 3] = 255
    drawn = numpy.random.default_rng(0).integers(256, size=(height, width, 3), dtype=numpy.uint8)
    known = known_of({"background": drawn, "layers": [layer]}, (channels, height, width))
    asked = replace(QUICK, sampler=sampler)
    *_, images = paint(subject, asked, known)

    monkeypatch.chdir(tmp_path)
    Path(kept(known.pixels().numpy(), tmp_path, KNOWN)).rename(KNOWN)
    made: dict[str, torch.Tensor] = {}
    exec(python_of(subject.source, asked, known=True), made)
    assert torch.equal(made["images"], images)
    assert distance(images, last(subject, asked)) > 0.01


def test_each_call_of_the_network_is_shown_and_the_last_estimate_is_the_picture(pixels: Subject) -> None:
    frames = list(paint(pixels, QUICK))
    assert len(frames) == 3 + 1
    assert distance(frames[0], frames[-1]) > 0
    assert torch.allclose(frames[-2], frames[-1])


def test_requests_that_take_turns_do_not_mix(pixels: Subject) -> None:
    asked = [QUICK, replace(QUICK, seed=9, sampler="heun", steps=5, guidance_scale=0.5, class_name="nought")]
    alone = [last(pixels, one) for one in asked]
    assert distance(*alone) > 0.01
    taking_turns = list(zip_longest(*(paint(pixels, one) for one in asked)))
    together = [[frame for frame in frames if frame is not None][-1] for frames in zip(*taking_turns, strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_request_leaves_the_model_as_it_was(pixels: Subject) -> None:
    def drawn() -> torch.Tensor:
        return draw(pixels.model, pixels.sizes, torch.tensor([1]), seed=0, steps=2)

    before = drawn()
    last(pixels, replace(QUICK, sampler="ddpm", grid="karras", guidance_scale=4.0))
    list(paint(pixels, QUICK, Known(torch.zeros(1, 8, 8), torch.ones(8, 8))))
    assert torch.equal(drawn(), before)


def test_what_is_kept_is_kept(pixels: Subject) -> None:
    image, mask = torch.rand(1, 8, 8) * 2 - 1, torch.zeros(8, 8)
    mask[:, 4:] = 1
    *_, images = paint(pixels, QUICK, Known(image, mask))
    assert torch.allclose(images[:, :, :, :4], image[:, :, :4].expand(2, -1, -1, -1), atol=1e-5)
    assert distance(images[0, :, :, 4:], images[1, :, :, 4:]) > 0.01


def test_a_model_of_latents_keeps_latents(latents: Subject) -> None:
    """Where all is kept, the picture is what the autoencoder makes of it."""
    image = torch.rand(3, 16, 16) * 2 - 1
    model = latents.model
    *_, images = paint(latents, QUICK, Known(image, torch.zeros(16, 16)))
    with torch.no_grad():
        expected = model.decode(model.scale.normalize(model.posterior(image[None]).mean)).clamp(-1, 1)
    assert torch.allclose(images, expected.expand(2, -1, -1, -1), atol=1e-4)


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 5), ("heun", 5), ("dpm-solver-3", 4), ("repaint", 2)])
def test_calls_are_counted_before_they_are_made(pixels: Subject, sampler: str, steps: int) -> None:
    asked = replace(QUICK, sampler=sampler, grid="karras", steps=steps, count=1)
    assert asked.calls(pixels.model, pixels.sizes, 600) == len(list(paint(pixels, asked))) - 1


def test_work_that_is_too_much_is_not_begun(pixels: Subject) -> None:
    asked = replace(QUICK, sampler="repaint", steps=250, count=1)
    assert asked.calls(pixels.model, pixels.sizes, 600) == 601
    model = shared_copy(pixels.model)
    network = pixels.sizes.sampler(model).model
    network.register_forward_pre_hook(lambda *_: pytest.fail("the network was called"))
    with pytest.raises(ValueError, match=r"250 steps of repaint .* more than 600"):
        last(replace(pixels, model=model), asked)


@pytest.mark.parametrize(
    ("sampler", "grid", "steps"), [("heun", "trailing", 8), ("heun", "karras", 2), ("plms", "trailing", 25)]
)
def test_what_is_told_to_take_instead_is_well(pixels: Subject, sampler: str, grid: str, steps: int) -> None:
    asked = replace(QUICK, sampler=sampler, grid=grid, steps=steps)
    doubt = asked.doubt(pixels.model, pixels.sizes)
    assert doubt.startswith(f"{asked} give noise")
    instead = re.findall(r"(\d+) steps? of (\S+) on (\S+)", doubt.partition("; try ")[2])
    assert instead
    for steps, sampler, grid in instead:
        other = replace(asked, steps=int(steps), sampler=sampler, grid=grid)
        assert other != asked
        assert other.doubt(pixels.model, pixels.sizes) == ""


def test_errors_fall_with_the_steps(pixels: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_labs.playground.convergence.STEPS", (1, 2, 8))
    monkeypatch.setattr("diffusion_labs.playground.convergence.MANY", 24)
    found = list(errors(pixels, replace(QUICK, count=1)))
    assert [calls for calls, _ in found] == [1, 2, 8]
    assert found[-1][1] < found[0][1] / 2
    assert plot({"ddim": found}).shape[2] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps .0. must be a whole number, at least 1"),
        ({"count": 0}, "pictures"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "below 2"),
        ({"guidance_scale": float("nan")}, "guidance"),
        ({"steps": 301}, "301 steps of ddim on trailing for 2 pictures take more than 600 calls of the network"),
        ({"steps": 250, "sampler": "dpm-solver-3"}, "more than 600 calls of the network"),
        ({"steps": 2, "count": 300, "sampler": "adaptive"}, "more than 600 calls of the network"),
        ({"class_name": "oen"}, "did you mean 'one'"),
        ({"prompt": "an apple"}, "takes no captions"),
        ({"sampler": "heum"}, "did you mean 'heun'"),
        ({"grid": "kerras"}, "did you mean 'karras'"),
    ],
)
def test_bad_requests_are_refused(pixels: Subject, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        last(pixels, replace(QUICK, **changes))


def test_who_goes_away_stops_the_work(pixels: Subject) -> None:
    before = threading.active_count()
    path = paint(pixels, replace(QUICK, steps=200))
    next(path)
    path.close()
    assert threading.active_count() == before


def test_masks_are_read_from_the_editor() -> None:
    image = numpy.zeros((80, 80), dtype=numpy.uint8)
    layer = numpy.zeros((80, 80, 4), dtype=numpy.uint8)
    layer[:40, :, 3] = 255
    known = known_of({"background": image, "layers": [layer]}, (1, 8, 8))
    assert torch.equal(known.image, -torch.ones(1, 8, 8))
    assert torch.equal(known.mask, torch.cat([torch.ones(4, 8), torch.zeros(4, 8)]))
    for editor in (None, {"background": None, "layers": []}):
        with pytest.raises(ValueError, match="there is no picture"):
            known_of(editor, (1, 8, 8))
    with pytest.raises(ValueError, match="nothing is marked"):
        known_of({"background": image, "layers": [layer * 0]}, (1, 8, 8))


def test_an_empty_canvas_is_no_picture() -> None:
    layer = numpy.full((80, 80, 4), 255, dtype=numpy.uint8)
    for canvas in (layer, layer[..., :3], layer * 0):
        with pytest.raises(ValueError, match="there is no picture; draw one, or upload one"):
            known_of({"background": canvas, "layers": [layer]}, (1, 8, 8))


def test_of_an_upload_the_middle_is_taken_and_what_is_transparent_is_white() -> None:
    image = numpy.zeros((80, 240, 4), dtype=numpy.uint8)
    image[:, 80:160] = (255, 0, 0, 255)
    image[:40, 80:160, 3] = 0
    layer = numpy.zeros((80, 240, 4), dtype=numpy.uint8)
    layer[:, 120:] = 255
    known = known_of({"background": image, "layers": [layer]}, (3, 8, 8))
    assert torch.equal(known.image[:, :4], torch.ones(3, 4, 8))
    assert torch.equal(known.image[:, 4:], torch.tensor([1.0, -1, -1]).view(3, 1, 1).expand(3, 4, 8))
    assert torch.equal(known.mask, torch.cat([torch.zeros(8, 4), torch.ones(8, 4)], 1))


def test_the_code_says_where_a_folder_is(pixels: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(pixels.source)
    monkeypatch.chdir(source.parent)
    assert f"open_model({str(source)!r})" in python_of(source.name, QUICK)
    assert "open_model('owner/name')" in python_of("owner/name", QUICK)


def test_pixels_are_shown_as_squares() -> None:
    picture = shown(torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), padding=0)
    assert (picture[:, : picture.shape[1] // 2] == 0).all()
    assert (picture[:, picture.shape[1] // 2 :] == 255).all()
