"""The command line. Nothing heavy is imported before a command is known, and its options are right."""

import importlib
import os
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path

from diffusion_labs.memory import keep_memory
from diffusion_labs.spelling import unknown

COMMANDS = {
    "train": "train a model by a recipe",
    "plan": "tell, without the hardware, whether a recipe's training fits, and how long it takes",
    "encode": "write the latents of a recipe's data to disk, once",
    "sample": "draw pictures from a run",
    "play": "draw, inpaint and compare samplers in a browser",
    "evaluate": "measure samples beside real images",
    "convert": "write a model in another format",
    "list": "show what there is: recipes, samplers, grids, schedules, predictors, adapters, presets",
    "demo": "train on handwritten digits, draw some, and say how good they are",
}
RESUMED = ("train", "encode")  # with --resume
GOING_ON = (*RESUMED, "demo")
HELP = """usage: diffusion-labs COMMAND [OPTIONS]

Train diffusion models and sample from them.

commands:
{commands}

`diffusion-labs COMMAND --help` tells the options of a command; `diffusion-labs --version` the version.
"""


class UserError(Exception):
    """A mistake in what was asked for: shown as one line, exit code 2."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 for a user's mistake, 130 or 143 when a signal stopped it."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]  # `list` is a command's module here
    show, warnings.formatwarning = warnings.formatwarning, OneLineWarnings()
    try:
        try:
            carry_out(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    finally:
        warnings.formatwarning = show


def carry_out(words: list[str]) -> None:
    """Carry out a command line."""
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:8} {text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=listing), end="")
        return
    if words[0] == "--version":
        print(f"diffusion-labs {version('diffusion-labs')}")
        return
    try:
        command = choose("command", words[0], COMMANDS)
        keep_memory()
        importlib.import_module(f"diffusion_labs.cli.{command}").run(words[1:])
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"interrupted; {how_to_go_on(words[0], words[1:])}", 130)


class OneLineWarnings:
    """Writes a warning as one line; of those from one place the first, second, fourth and so on."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()

    def __call__(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        self.counts[filename, lineno] += 1
        seldom = self.counts[filename, lineno].bit_count() == 1
        return f"diffusion-labs: warning: {' '.join(str(message).split())}\n" if seldom else ""


def choose(kind: str, word: str, known: Collection[str]) -> str:
    """``word`` if it is known, or an error that says what was probably meant."""
    if word not in known:
        raise UserError(unknown(kind, word, known))
    return word


def how_to_go_on(command: str, words: Sequence[str]) -> str:
    """What to enter after a command was stopped."""
    resumed = command in RESUMED and "--resume" not in words
    again = shlex.join(["diffusion-labs", command, *words, *["--resume"] * resumed])
    return f"{'go on' if command in GOING_ON else 'start again'} with: {again}"


def check_out(path: Path | None) -> None:
    """Refuse a file whose folder is not there, before there is something to be lost."""
    if path is not None and not path.parent.is_dir():
        raise UserError(f"--out is {path}, but there is no folder {path.parent}; make it, or choose another")


def fail(message: str, code: int = 2) -> None:
    """Print one line to standard error and exit."""
    print(f"diffusion-labs: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
