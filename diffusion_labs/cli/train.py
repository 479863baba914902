"""``diffusion-labs train RECIPE``: the options are the recipe's arguments and those of ``TrainOptions``."""

import os
from collections.abc import Sequence

from diffusion_labs.cli.recipe_name import recipe_of
from diffusion_labs.recipes.catalogue import RECIPES

HELP = """usage: diffusion-labs train RECIPE [OPTIONS]

Train a model by a recipe.

recipes:
{recipes}

Or a recipe of your own: FILE.py, with a function of the same name, or FILE.py:FUNCTION.

`diffusion-labs train RECIPE --help` tells the options of a recipe.
"""


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    name = recipe_of(words, RECIPES, HELP)
    if name is None:
        return
    from diffusion_labs.cli.recipe import carry_out
    from diffusion_labs.recipes.run import draws_images

    run_dir = carry_out("train", name, words[1:])
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun's other processes
    print(f"Done. Draw from it with: diffusion-labs sample {run_dir}" if draws_images(run_dir) else f"Done: {run_dir}")
