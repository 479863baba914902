"""Options from words; what is wrong with them is one line."""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from diffusion_labs.cli import UserError

T = TypeVar("T")
CORNERS, LINES = "╭╰+", "─- "  # of tyro's boxes
NAMES = 4  # how far the names in them are indented; what is said of them, farther


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
    rows = [row.strip()[1:-1] for row in box.splitlines() if row.strip() and row.strip()[0] not in CORNERS]
    end = next((i for i, row in enumerate(rows) if not row.strip(LINES)), len(rows))
    named = [row[1:].rstrip() for row in rows[:end]]
    message = " ".join(row.strip() for row in named if len(row) - len(row.lstrip()) <= NAMES)
    meant = re.search(r"Perhaps you meant:\W*?(--[\w-]+)", box)
    message = message[:1].lower() + message[1:].rstrip(".")
    return f"{message}; did you mean {meant[1]}?" if meant else message
