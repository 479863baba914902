"""Dialogues leave nothing behind."""

import builtins
from collections.abc import Iterator

import pytest

from tests.cli.conftest import digits_run  # noqa: F401  (a fixture)


@pytest.fixture(autouse=True)
def no_last_value() -> Iterator[None]:
    """Doctest leaves the last value in ``builtins._``; tyro's import fails where that is a list."""
    yield
    vars(builtins).pop("_", None)
