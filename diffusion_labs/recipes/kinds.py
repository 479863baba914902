"""The kinds of models that recipes train, by the names under which runs note them."""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

KINDS = {
    "ImageModel": "diffusion_labs.recipes.image_diffusion",
    "ImageTransformer": "diffusion_labs.recipes.image_diffusion",
    "LatentModel": "diffusion_labs.recipes.latent_model",
    "LatentTransformer": "diffusion_labs.recipes.latent_model",
    "CLIPModel": "diffusion_labs.recipes.dalle2",
    "PriorModel": "diffusion_labs.recipes.dalle2",
    "DecoderModel": "diffusion_labs.recipes.dalle2",
    "UpsamplerModel": "diffusion_labs.recipes.dalle2",
    "DALLE2Model": "diffusion_labs.recipes.dalle2",
    "SuperResolutionModel": "diffusion_labs.recipes.restoration",
    "InpaintingModel": "diffusion_labs.recipes.restoration",
}


def described(sizes: Any) -> dict[str, Any]:
    """The sizes of a model as plain data, with their kind."""
    return {"kind": type(sizes).__name__, **asdict(sizes)}


def sizes_of(description: Mapping[str, Any]) -> Any:
    """The sizes of a description: a ``ModelSizes``, if the model draws images.

    Raises:
        ValueError: for an unknown kind, or sizes that are not its own.
    """
    sizes = dict(description)
    kind = sizes.pop("kind", "ImageModel")
    if kind not in KINDS:
        raise ValueError(f"there is no kind of model {kind!r}; there are {sorted(KINDS)}")
    try:
        return getattr(importlib.import_module(KINDS[kind]), kind)(**sizes)
    except TypeError as error:
        raise ValueError(f"these are not the sizes of a {kind}: {error}") from error
