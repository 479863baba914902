"""``diffusion-labs play RUN_OR_PRETRAINED``: a page on which a trained model is played with."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from diffusion_labs.cli import UserError
from diffusion_labs.cli.parsing import parse


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    parse(play, words, "diffusion-labs play")


def play(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_PRETRAINED")],
    host: str = "127.0.0.1",
    port: int | None = None,
    most_work: int = 4000,
    device: str = "cpu",
) -> None:
    """Draw, inpaint and compare samplers in a browser, on a page that this machine alone can open.

    Args:
        source: a run's folder, or a folder that `diffusion-labs convert RUN FOLDER` wrote, here or on the hub.
        host: address to listen at; 0.0.0.0 lets other machines in.
        port: to listen at; a free one from 7860 on if not given.
        most_work: calls of the network, times pictures, that one request may take.
        device: where to compute.
    """
    from diffusion_labs.cli.mistakes import MISTAKES
    from diffusion_labs.playground.page import build_page, launch
    from diffusion_labs.playground.painting import Subject
    from diffusion_labs.recipes.opened import open_model
    from diffusion_labs.recipes.wanted import check_complete

    if most_work < 1:
        raise UserError(f"--most-work is {most_work}; it must be at least 1")
    if port is not None and not 0 < port < 2**16:
        raise UserError(f"--port is {port}; it must be from 1 to {2**16 - 1}")
    try:
        model, sizes = open_model(source, device)
        check_complete(sizes)
        launch(build_page(Subject(model, sizes, source, most_work)), host=host, port=port)
    except MISTAKES as error:
        raise UserError(str(error)) from error
