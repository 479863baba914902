"""The recipes by name."""

import importlib
from collections.abc import Callable

from diffusion_labs.training import Experiment

RECIPES = {
    "digits": "8x8 handwritten digits, part of the package: minutes on a laptop",
    "mnist": "MNIST or any data set in its format (IDX files)",
    "images": "a folder of images, with or without classes",
}


def find_recipe(name: str) -> Callable[..., Experiment]:
    """The function of a recipe: ``diffusion_labs.recipes.NAME.NAME``.

    Raises:
        KeyError: for an unknown name.
    """
    if name not in RECIPES:
        raise KeyError(f"there is no recipe '{name}'; there are {sorted(RECIPES)}")
    recipe: Callable[..., Experiment] = getattr(importlib.import_module(f"diffusion_labs.recipes.{name}"), name)
    return recipe
