"""What was probably meant by a name that is not known."""

import difflib
from collections.abc import Collection


def unknown(kind: str, word: str, known: Collection[str]) -> str:
    """The message about a name that is none of the known ones: what was probably meant, or what there is.

    Args:
        kind: of thing, such as "recipe".
        word: that was given.
        known: the names there are.
    """
    near = nearest(word, known)
    hint = f"did you mean '{near}'?" if near else f"choose one of: {', '.join(known)}"
    return f"unknown {kind} '{word}'; {hint}"


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known name that looks most like a word, whatever its case, or ``None`` if none does."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return names[near[0]] if near else None
