"""U-Nets in the folders of diffusers, without diffusers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.interop.diffusers_models import find_model, read_config, write_model
from diffusion_labs.interop.diffusers_unet2d import from_unet2d_config
from diffusion_labs.interop.diffusers_unet2d_condition import from_unet2d_condition_config
from diffusion_labs.interop.diffusers_unet_written import to_diffusers_unet_config
from diffusion_labs.interop.key_rules import load_foreign
from diffusion_labs.interop.unet_rules import diffusers_unet_rules
from diffusion_labs.interop.weight_files import read_diffusers_weights
from diffusion_labs.models.adm_unet import ADMUNet

READERS: dict[str, Callable[..., ADMUNet]] = {
    "UNet2DModel": from_unet2d_config,
    "UNet2DConditionModel": from_unet2d_condition_config,
}


def load_diffusers_unet(folder: str | Path, *, variant: str | None = None, learned_variance: bool = False) -> ADMUNet:
    """Read a ``UNet2DModel`` or ``UNet2DConditionModel`` that diffusers saved. It need not be installed.

    Args:
        folder: has ``config.json`` and the weights, itself or in ``unet``: safetensors or pickles, whole or in parts.
        variant: of the names of the weights, for example ``"fp16"``.
        learned_variance: see ``from_diffusers_unet_config``.

    Returns:
        The network, in torch's default dtype, with the conditions of ``from_diffusers_unet_config``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the key that is unknown or cannot be represented; or listing the weights that do not fit.
    """
    folder = find_model(folder, ["unet"])
    config = read_config(folder)
    with torch.device("meta"):
        model = from_diffusers_unet_config(config, learned_variance=learned_variance)
    model.to_empty(device="cpu")
    rules = diffusers_unet_rules(model, cosines_first=config.get("flip_sin_to_cos", True))
    load_foreign(model, read_diffusers_weights(folder, variant), rules)
    return model


def from_diffusers_unet_config(config: Mapping[str, Any], *, learned_variance: bool = False) -> ADMUNet:
    """The network of a ``config.json`` of diffusers, with random weights.

    Its conditions are ``class`` if there are class embeddings, of which the last counts as null; of a
    ``UNet2DConditionModel`` also ``text``, ``class_vector`` where ``class_labels`` are vectors
    (``class_embed_type="projection"``), and ``pooled_text`` and ``sizes`` if there are those of Stable Diffusion XL.

    Args:
        config: of a ``UNet2DModel`` or ``UNet2DConditionModel``.
        learned_variance: the second half of its output is the variance, which the configuration does not say.

    Raises:
        ValueError: naming the key that is unknown or cannot be represented.
    """
    name = config.get("_class_name")
    if name not in READERS:
        raise ValueError(f"_class_name={name!r} is not a U-Net of diffusers that is known here: {list(READERS)}")
    if learned_variance and config.get("out_channels", 2) % 2:
        raise ValueError(f"{name}: out_channels={config['out_channels']} must be even, as half of it is the variance")
    return READERS[name](config, learned_variance=learned_variance)


def save_diffusers_unet(
    model: ADMUNet, folder: str | Path, *, sample_size: int | None = None, conv_projections: bool = True
) -> None:
    """Write a folder that ``from_pretrained`` of diffusers reads.

    A network with tokens is written as ``UNet2DConditionModel``, one without as ``UNet2DModel``.

    Args:
        model: from ``ldm_unet`` or ``adm_unet``, in any dtype; its conditions may have any names.
        folder: is made.
        sample_size: the side of x for which pipelines of diffusers use it by default.
        conv_projections: the opposite of ``use_linear_projection`` in the configuration of diffusers.

    Raises:
        ValueError: for a network that diffusers has not.
    """
    config = to_diffusers_unet_config(model, from_diffusers_unet_config, conv_projections=conv_projections)
    tensors = to_diffusers_unet(model, conv_projections=conv_projections)
    write_model(folder, {**config, "sample_size": sample_size}, tensors)


def to_diffusers_unet(model: ADMUNet, *, conv_projections: bool = True) -> dict[str, Tensor]:
    """The weights of a U-Net by the names of ``UNet2DModel`` and ``UNet2DConditionModel``.

    Args:
        model: from ``ldm_unet`` or ``adm_unet``.
        conv_projections: the opposite of ``use_linear_projection`` in the configuration of diffusers.

    Raises:
        ValueError: for a network that diffusers has no names for.
    """
    return diffusers_unet_rules(model, conv_projections=conv_projections).to_theirs(model.state_dict())
