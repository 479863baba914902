"""The recipe that a command is for."""

from collections.abc import Mapping, Sequence

from diffusion_labs.cli import choose


def recipe_of(words: Sequence[str], recipes: Mapping[str, str], help_text: str) -> str | None:
    """The recipe, which is the first word; ``None`` if the help was asked for, which is then printed.

    Args:
        words: of the command.
        recipes: those that it takes, and what is said of each.
        help_text: with a place for these, ``{recipes}``.
    """
    if not words or words[0] in ("-h", "--help"):
        print(help_text.format(recipes="\n".join(f"  {name:22} {about}" for name, about in recipes.items())), end="")
        return None
    return choose("recipe", words[0], recipes)
