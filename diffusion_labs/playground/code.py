"""The Python that makes a picture."""

from diffusion_labs.playground.request import Request
from diffusion_labs.recipes.components import components


def python_of(source: str, request: Request, known_file: str | None = None) -> str:
    """A program that draws the same pictures, bit for bit, and writes them to a file.

    Args:
        source: of the model, see ``open_model``.
        request: the pictures.
        known_file: for ``read_known``, where a part of the pictures is known.
    """
    sampler, grid = components("samplers")[request.sampler].name, components("grids")[request.grid].name
    imported = given = passed = ""
    if known_file is not None:
        imported = "from diffusion_labs.recipes.known import know, read_known\n"
        given = f"known = know(model, sizes, read_known({known_file!r}), count={request.count})\n"
        passed = "    known=known,\n"
    what = f"{request.class_name!r}, {request.prompt!r}, count={request.count}"
    return f"""import diffusion_labs as dl
from diffusion_labs.recipes.drawing import draw
{imported}from diffusion_labs.recipes.opened import open_model
from diffusion_labs.recipes.wanted import wanted

model, sizes = open_model({source!r})
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
dl.save_image("pictures.png", dl.image_grid(images), scale=4)
"""
