"""``diffusion-labs list [KIND]``: what there is, with one line each."""

from collections.abc import Sequence

from diffusion_labs.cli import choose
from diffusion_labs.recipes.catalogue import RECIPES
from diffusion_labs.recipes.components import KINDS, components

WHERE = {
    "recipes": "for train, plan and encode",
    "samplers": "for sample --sampler and play",
    "grids": "of times, for sample --grid and play",
    "schedules": "for Python",
    "predictors": "for Python",
    "adapters": "for Python",
    "presets": "for convert --preset",
}
HELP = """usage: diffusion-labs list [KIND]

Show what there is: recipes, if no kind is given.

kinds:
{kinds}
"""


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    if words and words[0] in ("-h", "--help"):
        print(HELP.format(kinds="\n".join(f"  {kind:12}{where}" for kind, where in WHERE.items())), end="")
        return
    for kind in words or ["recipes"]:
        listed = lines(choose("kind", kind, WHERE))
        width = max(map(len, listed)) + 2
        print(f"{kind}, {WHERE[kind]}:")
        print("\n".join(f"  {name:{width}}{text}".rstrip() for name, text in listed.items()))
    if not words:
        print(f"\nAlso: diffusion-labs list {', '.join(kind for kind in WHERE if kind != 'recipes')}")


def lines(kind: str) -> dict[str, str]:
    """The names of a kind, and what is said of each."""
    if kind == "recipes":
        return RECIPES
    if kind in KINDS:
        return {name: component.summary for name, component in components(kind).items()}
    from diffusion_labs.interop.convert import PRESETS  # imports PyTorch, for its networks

    return dict.fromkeys(PRESETS, "")
