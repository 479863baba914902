"""Options from words; what is wrong with them is one line."""

import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from diffusion_labs.cli import UserError
from diffusion_labs.spelling import unknown

T = TypeVar("T")
BORDERS = dict.fromkeys(map(ord, "╭╮╰╯│─"), " ")  # of tyro's boxes; on terminals without Unicode there are none
NAMES = 6  # how far the names in them are indented; what is said of them, farther


def parse(kind: Callable[..., T], words: Sequence[str], prog: str) -> T:
    """Call a function, or make an instance of a class, with its arguments from words.

    Args:
        kind: its signature and docstring are the options.
        words: of the command line.
        prog: what is before them.

    Raises:
        UserError: one line about the first thing that is wrong.
    """

    @functools.wraps(kind, updated=())
    def later(*positional: Any, **named: Any) -> Callable[[], T]:
        return functools.partial(kind, *positional, **named)

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            call: Any = tyro.cli(later, args=words, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise  # the help
        raise UserError(f"{in_one_line(said.getvalue())} (see {prog} --help)") from None
    result: T = call()
    return result


def in_one_line(box: str) -> str:
    """The first paragraph of one of tyro's boxes, and the option that was probably meant."""
    rows = box.translate(BORDERS).splitlines()[1:]
    lines = itertools.dropwhile(is_rule, rows)
    message = " ".join(row.strip() for row in itertools.takewhile(lambda row: not is_rule(row), lines) if is_near(row))
    meant = re.search(r"Perhaps you meant:\W*?(--[\w-]+)", box)
    choice = re.match(r"Invalid choice '(.*)' for argument '(--[\w-]+)'\. Expected one of \((.*)\)", message, re.I)
    if choice:
        known = sorted(set(re.findall(r"'(.*?)'", choice[3])) - {"None"})
        return f"{choice[2]}: {unknown('choice', choice[1], known)}"
    message = message[:1].lower() + message[1:].rstrip(".")
    return f"{message}; did you mean {meant[1]}?" if meant else message


def is_rule(row: str) -> bool:
    """Whether a row parts paragraphs."""
    return not row.strip("- ")


def is_near(row: str) -> bool:
    """Whether a row is a sentence or a name, and not what is said of a name."""
    return len(row) - len(row.lstrip()) <= NAMES
