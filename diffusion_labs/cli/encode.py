"""``diffusion-labs encode RECIPE``: the latents of a recipe's data on disk, which training then reads."""

from collections.abc import Sequence
from typing import Any

import tyro

from diffusion_labs.cli import choose
from diffusion_labs.cli.train import carry_out, options_of
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
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(recipes="\n".join(f"  {name:22} {text}" for name, text in LATENT_RECIPES.items())), end="")
        return
    name = choose("recipe", words[0], LATENT_RECIPES)
    chosen: Any = tyro.cli(options_of(name), args=words[1:], prog=f"diffusion-labs encode {name}")
    run_dir = carry_out(name, vars(chosen), until="latents")
    print(f"The latents are in {run_dir / 'latents'}. Train on them with: diffusion-labs train {name} --resume")
