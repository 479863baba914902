"""A folder of diffusers, whatever is in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.interop.diffusers_autoencoder import SIZES as AUTOENCODER_CLASSES
from diffusion_labs.interop.diffusers_autoencoder import load_diffusers_autoencoder, save_diffusers_autoencoder
from diffusion_labs.interop.diffusers_dit import NAME as DIT_CLASS
from diffusion_labs.interop.diffusers_dit import load_diffusers_dit, save_diffusers_dit
from diffusion_labs.interop.diffusers_mmdit import NAME as MMDIT_CLASS
from diffusion_labs.interop.diffusers_mmdit import load_diffusers_mmdit, save_diffusers_mmdit
from diffusion_labs.interop.diffusers_models import FILE, read_config
from diffusion_labs.interop.diffusers_pipeline import load_diffusers_pipeline, save_diffusers_pipeline
from diffusion_labs.interop.diffusers_pipeline_index import INDEX, UNCLIP, read_index
from diffusion_labs.interop.diffusers_pixart import NAME as PIXART_CLASS
from diffusion_labs.interop.diffusers_pixart import load_diffusers_pixart, save_diffusers_pixart
from diffusion_labs.interop.diffusers_prior import NAME as PRIOR_CLASS
from diffusion_labs.interop.diffusers_prior import load_diffusers_prior, save_diffusers_prior
from diffusion_labs.interop.diffusers_unclip import PLACES as UNCLIP_DECODER
from diffusion_labs.interop.diffusers_unclip import load_diffusers_unclip_decoder, save_diffusers_unclip_decoder
from diffusion_labs.interop.diffusers_unclip_pipeline import load_diffusers_unclip
from diffusion_labs.interop.diffusers_unclip_written import save_diffusers_unclip
from diffusion_labs.interop.diffusers_unet import READERS as UNET_CLASSES
from diffusion_labs.interop.diffusers_unet import load_diffusers_unet, save_diffusers_unet
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel
from diffusion_labs.models.dalle2 import DALLE2
from diffusion_labs.models.ldm import LatentDiffusion
from diffusion_labs.models.transformer import DiT, MMDiT, PixArt, PriorTransformer


def read_diffusers(folder: Path, *, variant: str | None = None) -> nn.Module:
    """The model in a folder of diffusers: of a pipeline, of one of its models, or of the two of unCLIP's decoder.

    Raises:
        ValueError: for a folder of nothing that is known.
    """
    if (folder / INDEX).is_file():
        unclip = read_index(folder).get("_class_name") == UNCLIP
        return (load_diffusers_unclip if unclip else load_diffusers_pipeline)(folder, variant=variant)
    if all((folder / place / FILE).is_file() for place in UNCLIP_DECODER):
        return load_diffusers_unclip_decoder(folder, variant=variant)
    name = read_config(folder).get("_class_name") if (folder / FILE).is_file() else None
    if name not in READERS:
        raise ValueError(
            f"{folder} is no folder of ours, and none of a pipeline, U-Net, Transformer or autoencoder of diffusers"
            f"{'' if name is None else f', but of a {name}'}"
        )
    return READERS[name](folder, variant=variant)


def write_diffusers(model: nn.Module, folder: str | Path) -> None:
    """Write a model as diffusers does: a pipeline, U-Net, Transformer, prior or autoencoder.

    Raises:
        ValueError: for a model that diffusers has not.
    """
    if type(model) not in WRITERS:
        names = [kind.__name__ for kind in WRITERS]
        raise ValueError(f"a {type(model).__name__} is nothing that diffusers has; give one of {names}")
    WRITERS[type(model)](model, folder)


READERS: dict[str, Callable[..., nn.Module]] = {
    **dict.fromkeys(UNET_CLASSES, load_diffusers_unet),
    **dict.fromkeys(
        AUTOENCODER_CLASSES, lambda folder, variant: load_diffusers_autoencoder(folder, variant=variant).model
    ),
    PRIOR_CLASS: lambda folder, variant: load_diffusers_prior(folder, variant=variant).model,
    DIT_CLASS: load_diffusers_dit,
    PIXART_CLASS: load_diffusers_pixart,
    MMDIT_CLASS: load_diffusers_mmdit,
}
WRITERS: dict[type, Callable[..., Any]] = {
    DiT: save_diffusers_dit,
    PixArt: save_diffusers_pixart,
    MMDiT: save_diffusers_mmdit,
    PriorTransformer: save_diffusers_prior,
    CFGuidance: save_diffusers_unclip_decoder,
    DALLE2: save_diffusers_unclip,
    ADMUNet: save_diffusers_unet,
    AutoencoderKL: save_diffusers_autoencoder,
    VQModel: save_diffusers_autoencoder,
    LatentDiffusion: save_diffusers_pipeline,
}
