"""The recipes by name."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from diffusion_labs.recipes.own import is_own, load_own

if TYPE_CHECKING:  # names and lines about them are shown without PyTorch
    from diffusion_labs.recipes.stages import Stages

RECIPES = {
    "digits": "8x8 handwritten digits, part of the package: minutes on a laptop",
    "mnist": "MNIST or any data set in its format (IDX files)",
    "dit-mnist": "the same with a Transformer (DiT)",
    "images": "a folder of images, with or without classes",
    "image-stream": "images in WebDataset tars, streamed from disks or URLs, with or without classes",
    "super-resolution-mnist": "small digits made large: MNIST's, from a quarter of the size",
    "inpainting-mnist": "digits completed, of which a part is hidden: MNIST's",
    "ldm-mnist": "latent diffusion on MNIST: autoencoder, latents, network",
    "dit-ldm-mnist": "the same with a Transformer (DiT)",
    "ldm-emoji": "latent diffusion on captioned images in WebDataset tars",
    "dalle2-mnist": "DALL-E 2 on MNIST and captions made of its classes: CLIP, embeddings, prior, decoder, upsampler",
    "dalle2-mnist-clip": "its CLIP alone",
    "dalle2-mnist-prior": "its prior: CLIP, embeddings, prior",
    "dalle2-mnist-decoder": "its decoder: CLIP, embeddings, decoder",
    "dalle2-mnist-upsampler": "its upsampler alone",
    "dalle2-emoji": "DALL-E 2 on captioned images in WebDataset tars: CLIP, embeddings, prior, decoder, upsampler",
    "dalle2-emoji-clip": "its CLIP alone",
    "dalle2-emoji-prior": "its prior: CLIP, embeddings, prior",
    "dalle2-emoji-decoder": "its decoder: CLIP, embeddings, decoder",
    "dalle2-emoji-upsampler": "its upsampler alone",
}
LATENT_RECIPES = {name: text for name, text in RECIPES.items() if "ldm-" in name}  # have a stage "latents"


def find_recipe(name: str) -> "Callable[..., Stages]":
    """The function of a recipe: ``diffusion_labs.recipes.NAME.NAME``, with ``_`` for ``-``, or one of ``load_own``.

    Raises:
        KeyError: for an unknown name.
        ValueError: see ``load_own``.
    """
    if is_own(name):
        own: Callable[..., Stages] = load_own(name)
        return own
    if name not in RECIPES:
        raise KeyError(f"there is no recipe '{name}'; there are {sorted(RECIPES)}")
    module = name.replace("-", "_")
    recipe: Callable[..., Stages] = getattr(importlib.import_module(f"diffusion_labs.recipes.{module}"), module)
    return recipe
