"""Commands that carry out a recipe: the options are the recipe's arguments, and those of the command."""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from docstring_parser import parse as parse_docstring

from diffusion_labs.cli import UserError, fail, how_to_go_on
from diffusion_labs.cli.mistakes import MISTAKES
from diffusion_labs.cli.parsing import parse
from diffusion_labs.data import DataError
from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.own import short_name
from diffusion_labs.recipes.run import has_checkpoint, prepare_run
from diffusion_labs.training import (
    CheckpointError,
    OptionError,
    Stopped,
    TrackerError,
    TrainOptions,
    find_device,
)
from diffusion_labs.training.trackers import named_trackers


def chosen_options(command: str, name: str, words: Sequence[str], kind: type = TrainOptions) -> dict[str, Any]:
    """All options of a command for a recipe: the recipe's arguments and the fields of ``kind``."""
    return vars(parse(options_of(name, kind), words, f"diffusion-labs {command} {name}"))


def carry_out(command: str, name: str, words: Sequence[str], until: str | None = None) -> Path:
    """Carry out a recipe, and return the run's folder.

    Args:
        command: "train" or "encode".
        name: of the recipe.
        words: its options.
        until: the last stage to carry out; all if ``None``.
    """
    chosen = chosen_options(command, name, words)
    run_dir: Path = chosen.pop("run_dir")
    try:
        options = TrainOptions(**{option.name: chosen.pop(option.name) for option in fields(TrainOptions)})
        find_device(options.device)
        named_trackers(options.track)  # whether their packages are there
        stages = prepare_run(name, chosen, run_dir, resume=options.resume)
        stages = stages if until is None else stages.until(until)
        if options.resume and not has_checkpoint(run_dir):
            print(f"There is no checkpoint in {run_dir} yet: starting anew", file=sys.stderr)
    except MISTAKES as error:
        raise UserError(str(error)) from error
    try:
        stages.carry_out(run_dir, options)
    except (DataError, CheckpointError, OptionError, TrackerError, OSError) as error:
        raise UserError(str(error)) from error
    except Stopped as stop:
        print(file=sys.stderr)  # below the bar
        again = how_to_go_on(command, [name, *words])
        fail(str(stop) if os.environ.get("RANK") else f"{str(stop).partition(';')[0]}; {again}", 128 + stop.signal)
    except FloatingPointError as error:
        fail(str(error), 1)
    return run_dir


def options_of(name: str, kind: Any = TrainOptions) -> type:
    """A dataclass with the arguments of a recipe, the fields of ``kind`` and, if it is trained, the run's folder."""
    recipe = find_recipe(name)
    several = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    hints = {**get_type_hints(recipe), **get_type_hints(kind), "run_dir": Path, "track": several}
    defaults: dict[str, Any] = {key: value.default for key, value in inspect.signature(recipe).parameters.items()}
    if untyped := defaults.keys() - hints.keys():
        raise UserError(f"{name} has arguments without types, of which its options are made: {sorted(untyped)}")
    defaults |= {"run_dir": Path("runs") / short_name(name)} if kind is TrainOptions else {}
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
    own, options = parse_docstring(recipe.__doc__ or ""), parse_docstring(kind.__doc__ or "")
    described = [(p.arg_name, p.description) for p in (*own.params, *options.params)]
    described.append(("run_dir", "folder for checkpoints, metrics and pictures."))
    lines = [
        own.short_description or "",
        "",
        "Attributes:",
        *(f"    {key}: {' '.join((text or '').split())}" for key, text in described),
    ]
    return "\n".join(lines)
