"""The recipe that a command is for."""

from collections.abc import Mapping, Sequence

from diffusion_labs.cli import UserError, choose
from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.own import is_own


def recipe_of(words: Sequence[str], recipes: Mapping[str, str], help_text: str) -> str | None:
    """The recipe, which is the first word; ``None`` if the help was asked for, which is then printed.

    It is one of those, or one of the user's own, see ``load_own``.

    Args:
        words: of the command.
        recipes: those that it takes, and what is said of each.
        help_text: with a place for these, ``{recipes}``.
    """
    if not words or words[0] in ("-h", "--help"):
        print(help_text.format(recipes="\n".join(f"  {name:22} {about}" for name, about in recipes.items())), end="")
        return None
    if not is_own(words[0]):
        return choose("recipe", words[0], recipes)
    try:
        find_recipe(words[0])
    except ValueError as error:
        raise UserError(str(error)) from error
    return words[0]
