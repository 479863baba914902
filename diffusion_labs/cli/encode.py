"""``diffusion-labs encode RECIPE``: the latents of a recipe's data on disk, which training then reads."""

from collections.abc import Sequence

from diffusion_labs.cli.recipe_name import recipe_of
from diffusion_labs.recipes.catalogue import LATENT_RECIPES

HELP = """usage: diffusion-labs encode RECIPE [OPTIONS]

Carry out a recipe up to its latents on disk: train the autoencoder, unless it is trained, and encode every image once.
What was interrupted goes on with --resume; `diffusion-labs train RECIPE --resume` trains the network on the latents.

recipes:
{recipes}

`diffusion-labs encode RECIPE --help` tells the options of a recipe.
"""


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    name = recipe_of(words, LATENT_RECIPES, HELP)
    if name is None:
        return
    from diffusion_labs.cli.recipe import carry_out

    run_dir = carry_out("encode", name, words[1:], until="latents")
    print(f"The latents are in {run_dir / 'latents'}. Go on with: diffusion-labs train {name} --resume")
