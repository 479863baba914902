"""The command line. Nothing heavy is imported before a command is known."""

import difflib
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a model by a recipe",
    "plan": "tell, without the hardware, whether a recipe's training fits, and how long it takes",
    "encode": "write the latents of a recipe's data to disk, once",
    "sample": "draw pictures from a run",
    "evaluate": "measure samples beside real images",
    "convert": "write a model in another format",
    "demo": "train on handwritten digits, draw some, and say how good they are",
}
HELP = """usage: diffusion-labs COMMAND [OPTIONS]

Train diffusion models and sample from them.

commands:
{commands}

`diffusion-labs COMMAND --help` tells the options of a command.
"""


class UserError(Exception):
    """A mistake in what was asked for: shown as one line, exit code 2."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 for a user's mistake, 130 or 143 when a signal stopped it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:8} {text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=listing), end="")
        return
    try:
        command = choose("command", words[0], COMMANDS)
        importlib.import_module(f"diffusion_labs.cli.{command}").run(words[1:])
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def choose(kind: str, word: str, known: Sequence[str] | dict[str, str]) -> str:
    """``word`` if it is known, or an error that says what was probably meant."""
    if word in known:
        return word
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(known)}"
    raise UserError(f"unknown {kind} '{word}'; {hint}")


def fail(message: str, code: int = 2) -> None:
    """Print one line to standard error and exit."""
    print(f"diffusion-labs: {message}", file=sys.stderr)
    sys.exit(code)
