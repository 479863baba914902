"""``diffusion-labs plan RECIPE``: whether its training fits, and how long it takes."""

import sys
from collections.abc import Sequence

from diffusion_labs.cli.recipe_name import recipe_of
from diffusion_labs.recipes.catalogue import RECIPES

HELP = """usage: diffusion-labs plan RECIPE [OPTIONS]

Tell, without the hardware, whether the training of a recipe fits into the memory of some devices, and how long an
update takes. Nothing is trained, and no weights are allocated; the data are read, as recipes learn sizes from them.
The exit code is 0 if all stages fit, and 1 if one does not.

recipes:
{recipes}

Or a recipe of your own: FILE.py, with a function of the same name, or FILE.py:FUNCTION.

`diffusion-labs plan RECIPE --help` tells the options of a recipe.
"""


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    name = recipe_of(words, RECIPES, HELP)
    if name is None:
        return
    from diffusion_labs.cli.plan_report import PlanOptions, plan
    from diffusion_labs.cli.recipe import chosen_options

    if not plan(name, chosen_options("plan", name, words[1:], PlanOptions)):
        sys.exit(1)
