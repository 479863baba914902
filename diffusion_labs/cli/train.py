"""``diffusion-labs train RECIPE``: the options are the recipe's arguments and those of ``TrainOptions``."""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import tyro
from docstring_parser import parse

from diffusion_labs.cli import UserError, choose
from diffusion_labs.data import DataError
from diffusion_labs.recipes.catalogue import RECIPES, find_recipe
from diffusion_labs.recipes.run import draws_images, has_checkpoint, prepare_run
from diffusion_labs.training import CheckpointError, OptionError, Stopped, TrainOptions, find_device

HELP = """usage: diffusion-labs train RECIPE [OPTIONS]

Train a model by a recipe.

recipes:
{recipes}

`diffusion-labs train RECIPE --help` tells the options of a recipe.
"""


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    chosen = chosen_options("train", words, RECIPES, HELP)
    if chosen is not None:
        run_dir = carry_out(*chosen)
        if os.environ.get("RANK", "0") != "0":
            return  # torchrun's other processes
        print(
            f"Done. Draw from it with: diffusion-labs sample {run_dir}" if draws_images(run_dir) else f"Done: {run_dir}"
        )


def chosen_options(
    command: str, words: Sequence[str], recipes: dict[str, str], help_text: str, kind: type = TrainOptions
) -> tuple[str, dict[str, Any]] | None:
    """The recipe and all its options, of a command for a recipe; ``None`` if its help was asked for.

    The options are the recipe's arguments and the fields of ``kind``.
    """
    if not words or words[0] in ("-h", "--help"):
        print(help_text.format(recipes="\n".join(f"  {name:22} {about}" for name, about in recipes.items())), end="")
        return None
    name = choose("recipe", words[0], recipes)
    chosen: Any = tyro.cli(options_of(name, kind), args=words[1:], prog=f"diffusion-labs {command} {name}")
    return name, vars(chosen)


def carry_out(name: str, chosen: dict[str, Any], until: str | None = None) -> Path:
    """Carry out a recipe, with all its options in one dict, and return the run's folder.

    Args:
        name: of the recipe.
        chosen: its options.
        until: the last stage to carry out; all if ``None``.
    """
    run_dir: Path = chosen.pop("run_dir")
    try:
        options = TrainOptions(**{option.name: chosen.pop(option.name) for option in fields(TrainOptions)})
        find_device(options.device)
        stages = prepare_run(name, chosen, run_dir, resume=options.resume)
        stages = stages if until is None else stages.until(until)
        if options.resume and not has_checkpoint(run_dir):
            print(f"There is no checkpoint in {run_dir} yet: starting anew", file=sys.stderr)
    except (ValueError, OSError, CheckpointError) as error:
        raise UserError(str(error)) from error
    try:
        stages.carry_out(run_dir, options)
    except (DataError, CheckpointError, OptionError, OSError) as error:
        raise UserError(str(error)) from error
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except FloatingPointError as error:
        sys.exit(f"diffusion-labs: {error}")
    return run_dir


def options_of(name: str, kind: Any = TrainOptions) -> type:
    """A dataclass with the arguments of a recipe, the fields of ``kind`` and, if it is trained, the run's folder."""
    recipe = find_recipe(name)
    hints = {**get_type_hints(recipe), **get_type_hints(kind), "run_dir": Path}
    defaults: dict[str, Any] = {key: value.default for key, value in inspect.signature(recipe).parameters.items()}
    defaults |= {"run_dir": Path("runs") / name} if kind is TrainOptions else {}
    defaults |= {option.name: option.default for option in fields(kind)}
    columns = [
        (key, hints[key]) if default is inspect.Parameter.empty else (key, hints[key], default)
        for key, default in defaults.items()
    ]
    options = make_dataclass("Options", columns, kw_only=True)
    options.__doc__ = docstring(recipe, kind)
    return options


def docstring(recipe: Callable[..., Any], kind: type = TrainOptions) -> str:
    """The recipe's summary, and the descriptions of its arguments and of the options."""
    own, options = parse(recipe.__doc__ or ""), parse(kind.__doc__ or "")
    described = [(p.arg_name, p.description) for p in (*own.params, *options.params)]
    described.append(("run_dir", "folder for checkpoints, metrics and pictures."))
    lines = [
        own.short_description or "",
        "",
        "Attributes:",
        *(f"    {key}: {text}" for key, text in described),
    ]
    return "\n".join(lines)
