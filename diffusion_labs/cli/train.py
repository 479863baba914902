"""``diffusion-labs train RECIPE``: the options are the recipe's arguments and those of ``TrainOptions``."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import tyro
from docstring_parser import parse

from diffusion_labs.cli import UserError, choose
from diffusion_labs.data import DataError
from diffusion_labs.recipes.catalogue import RECIPES, find_recipe
from diffusion_labs.recipes.run import train_recipe
from diffusion_labs.training import CheckpointError, Stopped, TrainOptions

HELP = """usage: diffusion-labs train RECIPE [OPTIONS]

Train a model by a recipe.

recipes:
{recipes}

`diffusion-labs train RECIPE --help` tells the options of a recipe.
"""


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(recipes="\n".join(f"  {name:8} {text}" for name, text in RECIPES.items())), end="")
        return
    recipe = choose("recipe", words[0], RECIPES)
    tyro.cli(command(recipe), args=words[1:], prog=f"diffusion-labs train {recipe}")


def command(name: str) -> Callable[..., None]:
    """A function whose signature and docstring are those of a recipe and of ``TrainOptions`` together."""
    recipe = find_recipe(name)
    option_names = [option.name for option in fields(TrainOptions)]

    def carry_out(run_dir: Path, **arguments: Any) -> None:
        options = TrainOptions(**{key: arguments.pop(key) for key in option_names})
        try:
            train_recipe(name, arguments, run_dir, options)
        except (DataError, CheckpointError) as error:
            raise UserError(str(error)) from error
        except Stopped as stop:
            print(f"\n{stop}", file=sys.stderr)
            sys.exit(128 + stop.signal)
        except FloatingPointError as error:
            sys.exit(f"diffusion-labs: {error}")
        print(f"Done. Draw from it with: diffusion-labs sample {run_dir}")

    keyword = inspect.Parameter.KEYWORD_ONLY
    hints = {**get_type_hints(recipe), **get_type_hints(TrainOptions), "run_dir": Path}
    parameters = [
        *inspect.signature(recipe).parameters.values(),
        inspect.Parameter("run_dir", keyword, default=Path("runs") / name),
        *(inspect.Parameter(option.name, keyword, default=option.default) for option in fields(TrainOptions)),
    ]
    carry_out.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=keyword, annotation=hints[p.name]) for p in parameters]
    )
    carry_out.__annotations__ = {p.name: hints[p.name] for p in parameters}
    carry_out.__doc__ = docstring(recipe)
    return carry_out


def docstring(recipe: Callable[..., Any]) -> str:
    """The recipe's summary, and the descriptions of its arguments and of the options."""
    own, options = parse(recipe.__doc__ or ""), parse(TrainOptions.__doc__ or "")
    described = [(p.arg_name, p.description) for p in (*own.params, *options.params)]
    described.append(("run_dir", "folder for checkpoints, metrics and pictures."))
    lines = [own.short_description or "", "", "Args:", *(f"    {name}: {text}" for name, text in described)]
    return "\n".join(lines)

