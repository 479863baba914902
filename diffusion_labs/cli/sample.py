"""``diffusion-labs sample RUN``: pictures from a trained model."""

import math
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from diffusion_labs.cli import UserError, check_out
from diffusion_labs.cli.parsing import parse


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    parse(sample, words, "diffusion-labs sample")


def sample(
    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None,
    prompt: str | None = None,
    count: int = 16,
    steps: int = 50,
    guidance_scale: float = 2.0,
    prior_guidance_scale: float | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    seed: int = 0,
    sigma_rel: float | None = None,
    out: Path | None = None,
    device: str = "cpu",
    compile: bool = False,
) -> None:
    """Draw pictures from a run, with the averaged weights of its newest checkpoint.

    Args:
        run_dir: the run's folder.
        class_name: the class to draw; all in turn if none is given.
        prompt: what to draw, in words, where the model takes captions.
        count: how many pictures.
        steps: calls of the network for each, or steps of samplers that make several.
        guidance_scale: 1 follows the model, more exaggerates the class.
        prior_guidance_scale: the same for the prior of DALL-E 2; its own, which is 1, if not given.
        sampler: what makes pictures of noise, such as heun, see `diffusion-labs list samplers`, or one of your own,
            FILE.py:CLASS; the model's own if not given. fitted is fitted to this model, these steps and guidance first,
            and kept in the run's folder.
        grid: of the times of the calls, such as karras, see `diffusion-labs list grids`, or FILE.py:FUNCTION. Those by
            the noise level can have more steps than the process was trained with.
        seed: of the first picture; the next has the next seed.
        sigma_rel: relative width of the average of the weights, such as 0.07, of a run with snapshots (train
            --ema-snapshot-every).
        out: file to write; in the run's folder if none is given.
        device: where to compute.
        compile: compile the model first, for many pictures or steps; the next command has it from a cache. On a CPU
            this needs a C++ compiler.
    """
    from diffusion_labs.cli.mistakes import MISTAKES
    from diffusion_labs.images import image_grid, save_image
    from diffusion_labs.recipes.drawing import draw, guide_prior
    from diffusion_labs.recipes.fitting import IMAGES, with_fitted_sampler
    from diffusion_labs.recipes.run import load_run
    from diffusion_labs.recipes.variants import doubts, with_sampler
    from diffusion_labs.recipes.wanted import check_complete, wanted
    from diffusion_labs.samplers import FittedSampler

    for name, value in (("count", count), ("steps", steps)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1")
    path = out or run_dir / "samples" / f"{file_name(prompt) or class_name or 'all'}-seed-{seed}.png"
    if path.suffix.lower() not in (".png", ".jpg", ".webp"):
        raise UserError(f"--out is {path}; its name must end in .png, .jpg or .webp")
    check_out(out)
    for name, scale in (("guidance-scale", guidance_scale), ("prior-guidance-scale", prior_guidance_scale)):
        if scale is not None and not math.isfinite(scale):
            raise UserError(f"--{name} is {scale}; it must be a number")
    try:
        kind = None if sampler is None else named("samplers", sampler)
        times = None if grid is None else named("grids", grid)
        model, sizes = load_run(run_dir, device, sigma_rel=sigma_rel)
        check_complete(sizes)
        guide_prior(model, prior_guidance_scale)
        fitted = kind is FittedSampler
        if fitted:
            examples, folder = wanted(sizes, None, prompt, IMAGES), run_dir / "fitted"
            model = with_fitted_sampler(
                model, sizes, examples, steps=steps, guidance_scale=guidance_scale, grid=times, folder=folder
            )
        else:
            model = with_sampler(model, sizes, kind, times)
        if not fitted and (kind is not None or times is not None):
            for finding in doubts(model, sizes, steps):
                print(finding, file=sys.stderr)
        what = wanted(sizes, class_name, prompt, count)
        drawing = partial(draw, model, sizes, what, seed=seed, guidance_scale=guidance_scale)
        if compile:
            began = time.monotonic()
            sizes.sampler(model).model.compile(fullgraph=True)
            drawing(steps=steps if fitted else 1)
            print(f"compiled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        images = drawing(steps=steps, progress_bar=True)
        columns = min(count, len(sizes.class_names) if class_name is None and sizes.class_names else 8)
        save_image(path, image_grid(images, columns=columns), scale=max(1, 64 // sizes.image_shape[1]))
    except MISTAKES as error:
        raise UserError(str(error)) from error
    print(path)


def named(kind: str, name: str) -> Any:
    """The sampler or grid of a name, which may be one of the user's own.

    Raises:
        ValueError: if there is none, or what has the name is no sampler, or no grid.
    """
    from diffusion_labs.recipes.components import find_component
    from diffusion_labs.recipes.own import is_own, load_own
    from diffusion_labs.samplers import Sampler

    if not is_own(name):
        return find_component(kind, name)
    own = load_own(name)
    is_sampler = isinstance(own, type) and issubclass(own, Sampler)
    if is_sampler if kind == "grids" else not is_sampler:
        raise ValueError(f"{name} is {own!r}, which is no {kind.removesuffix('s')}")
    return own


def file_name(text: str | None) -> str:
    """A text as a part of a file's name: its first letters and digits, joined by hyphens."""
    return "-".join(re.findall(r"\w+", text or ""))[:60]
