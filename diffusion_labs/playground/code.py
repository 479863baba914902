"""The Python that makes a picture."""

from pathlib import Path

from diffusion_labs.playground.request import Request
from diffusion_labs.recipes.components import components

KNOWN = "known.png"


def python_of(source: str, request: Request, *, known: bool = False, file: str = "pictures.png") -> str:
    """A program that draws the same pictures, bit for bit, and writes them to a file.

    Args:
        source: of the model, see ``open_model``.
        request: the pictures.
        known: whether a part of the pictures is known: the program reads it from the file ``KNOWN``.
        file: of the pictures.
    """
    sampler, grid = components("samplers")[request.sampler].name, components("grids")[request.grid].name
    drawing = "draw"
    imported = given = passed = ""
    if known:
        imported = "from diffusion_labs.recipes.known import know, read_known\n"
        given = (
            f"# {KNOWN}: from the button of the page; it is transparent where the picture is made anew\n"
            f"known = know(model, sizes, read_known({KNOWN!r}), count={request.count})\n"
        )
        passed = "    known=known,\n"
    if request.prior_guidance_scale is not None:
        drawing = "draw, guide_prior"
        given = f"guide_prior(model, {request.prior_guidance_scale!r})\n{given}"
    what = f"{request.class_name!r}, {request.prompt!r}, count={request.count}"
    where = str(Path(source).resolve()) if Path(source).exists() else source  # or a name on the hub
    return f"""import diffusion_labs as dl
from diffusion_labs.recipes.drawing import {drawing}
{imported}from diffusion_labs.recipes.opened import open_model
from diffusion_labs.recipes.wanted import wanted

model, sizes = open_model({where!r})
{given}images = draw(
    model,
    sizes,
    wanted(sizes, {what}),
    seed={request.seed},
    guidance_scale={request.guidance_scale!r},
    steps={request.steps},
    sampler=dl.{sampler},
    grid=dl.{grid},
{passed})
dl.save_image({file!r}, dl.image_grid(images), scale=4)
"""
