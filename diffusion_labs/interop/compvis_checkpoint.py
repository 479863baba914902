"""Whole checkpoints of Latent Diffusion and Stable Diffusion 1 and 2: one file for all networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_labs.interop.compvis_autoencoder import PREFIX as FIRST_STAGE
from diffusion_labs.interop.compvis_autoencoder import load_compvis_autoencoder, to_compvis_autoencoder
from diffusion_labs.interop.compvis_condition import PREFIX as CONDITION
from diffusion_labs.interop.compvis_condition import load_compvis_condition, to_compvis_condition
from diffusion_labs.interop.compvis_unet import AVERAGED, load_compvis_unet, to_compvis_unet
from diffusion_labs.interop.compvis_unet import PREFIX as UNET
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.autoencoder.autoencoder import Autoencoder

LOSS = "loss."
SCALE = "scale_factor"
# What the code of training computes again from its configuration, and a weight of the loss that stays 0
SCHEDULE = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
        "logvar",
    }
)
_SHOWN = 10  # keys that an error lists


class CompVisParts(NamedTuple):
    """The tensors of a checkpoint by the network that they belong to, whose prefix they have lost.

    Attributes:
        unet: below ``model.diffusion_model.``.
        averaged: below ``model_ema.``: the moving averages of the U-Net, if there are.
        autoencoder: below ``first_stage_model.``.
        condition: below ``cond_stage_model.``: the condition encoder, if there is, and it is not the autoencoder.
        scale_factor: by which latents are multiplied for diffusion, if the file says it. For Stable Diffusion it is
            0.18215.
    """

    unet: dict[str, Tensor]
    averaged: dict[str, Tensor]
    autoencoder: dict[str, Tensor]
    condition: dict[str, Tensor]
    scale_factor: float | None


def read_compvis_checkpoint(weights: Mapping[str, Tensor] | str | Path) -> CompVisParts:
    """The networks in a checkpoint.

    The buffers of the schedule (``SCHEDULE``) and ``loss.`` are no part of them. Where conditions are images, as for
    inpainting, it is the autoencoder that encodes them, and ``cond_stage_model.`` is a copy of it, which is left out.

    Args:
        weights: the file, ``.ckpt`` or ``.safetensors``, or its tensors.

    Raises:
        ValueError: for keys of no such network, or a copy that is none; or a file that is damaged, or holds more than
            weights.
    """
    tensors = weights if isinstance(weights, Mapping) else read_weights(Path(weights))
    scale = tensors.get(SCALE)
    families = {prefix: _below(tensors, prefix) for prefix in (UNET, AVERAGED, FIRST_STAGE, CONDITION)}
    _check_known(tensors)
    condition, autoencoder = families[CONDITION], families[FIRST_STAGE]
    if condition.keys() & autoencoder.keys():
        different = [key for key in condition if key not in autoencoder or not condition[key].equal(autoencoder[key])]
        if different:
            raise ValueError(
                f"the condition encoder of the checkpoint is an autoencoder, but differs from that of the images in "
                f"{_some([CONDITION + key for key in different])}; load its networks one by one"
            )
        condition = {}
    return CompVisParts(
        families[UNET], families[AVERAGED], autoencoder, condition, None if scale is None else float(scale)
    )


def load_compvis_checkpoint(
    weights: Mapping[str, Tensor] | str | Path,
    *,
    unet: ADMUNet | None = None,
    autoencoder: Autoencoder | None = None,
    condition_encoder: nn.Module | None = None,
    averaged: bool = False,
    strict: bool = True,
) -> float | None:
    """Load the networks of a checkpoint of Latent Diffusion or Stable Diffusion 1 or 2. They are built first.

    Args:
        weights: the file, ``.ckpt`` or ``.safetensors``, or its tensors.
        unet: from ``ldm_unet``, for example ``ldm_unet(**LDM_UNETS["stable_diffusion_1"])``.
        autoencoder: for example ``kl_f8()``.
        condition_encoder: a ``ClassEmbedding``, ``LDMTextEncoder`` or ``SpatialRescaler``; or a ``CLIPTextModel`` of
            transformers, or a module around one. For Stable Diffusion 2 it has 23 layers, as the last of 24 is not
            used.
        averaged: take the moving averages of the U-Net.
        strict: see ``load_foreign``.

    Returns:
        The factor of the latents, if the file says it.

    Raises:
        ValueError: for weights of other networks, or keys of none, naming them; for a network that the file has not;
            or a file that is damaged, or holds more than weights.

    Example:
        >>> unet, autoencoder = ldm_unet(**LDM_UNETS["stable_diffusion_1"]), kl_f8()
        >>> load_compvis_checkpoint("v1-5-pruned.ckpt", unet=unet, autoencoder=autoencoder, averaged=True)
    """
    parts = read_compvis_checkpoint(weights)
    prefix, own = (AVERAGED, parts.averaged) if averaged else (UNET, parts.unet)
    wanted = {
        "unet": (unet, own, prefix),
        "autoencoder": (autoencoder, parts.autoencoder, FIRST_STAGE),
        "condition_encoder": (condition_encoder, parts.condition, CONDITION),
    }
    for name, (module, tensors, place) in wanted.items():
        if module is not None and module.state_dict() and not tensors:
            raise ValueError(f"the checkpoint has nothing below {place}, so no {name}; leave {name} out")
    if unet is not None:
        inside = {prefix + key: value for key, value in own.items()}
        load_compvis_unet(unet, inside, averaged=averaged, strict=strict)
    if autoencoder is not None:
        load_compvis_autoencoder(autoencoder, parts.autoencoder, strict=strict)
    if condition_encoder is not None and condition_encoder.state_dict():
        load_compvis_condition(condition_encoder, parts.condition, strict=strict)
    return parts.scale_factor


def to_compvis_checkpoint(
    *,
    unet: ADMUNet | None = None,
    autoencoder: Autoencoder | None = None,
    condition_encoder: nn.Module | None = None,
    scale_factor: float | None = None,
    version: int = 1,
) -> dict[str, Tensor]:
    """The networks as one checkpoint of Latent Diffusion or Stable Diffusion, without the buffers of a schedule.

    Args:
        unet: from ``ldm_unet`` or ``adm_unet``.
        autoencoder: an ``AutoencoderKL`` or ``VQModel``.
        condition_encoder: see ``load_compvis_checkpoint``. Of a ``ClassEmbedding`` a last row of zeros is left out.
        scale_factor: by which latents are multiplied for diffusion.
        version: of Stable Diffusion: 1 has convolutions around its Transformers, as Latent Diffusion, and transformers'
            names of CLIP; 2 linear layers, and OpenCLIP's names.

    Raises:
        ValueError: for a network with parts that have no names there, or another version.
    """
    if version not in (1, 2):
        raise ValueError(f"version ({version}) must be 1 or 2, of Stable Diffusion")
    checkpoint: dict[str, Tensor] = {}
    if unet is not None:
        own = to_compvis_unet(unet, conv_projections=version == 1)
        checkpoint |= {UNET + key: value for key, value in own.items()}
    if autoencoder is not None:
        checkpoint |= {FIRST_STAGE + key: value for key, value in to_compvis_autoencoder(autoencoder).items()}
    if condition_encoder is not None:
        theirs = to_compvis_condition(condition_encoder, version=version)
        checkpoint |= {CONDITION + key: value for key, value in theirs.items()}
    if scale_factor is not None:
        checkpoint[SCALE] = torch.tensor(scale_factor)
    return checkpoint


def _check_known(tensors: Mapping[str, Tensor]) -> None:
    families = (UNET, AVERAGED, FIRST_STAGE, CONDITION)
    beside = {SCALE, *SCHEDULE}
    unknown = [key for key in tensors if key not in beside and not key.startswith((*families, LOSS))]
    if not any(key.startswith(families) for key in tensors):
        found = sorted({".".join(key.split(".")[:2]) for key in tensors})
        raise ValueError(
            f"the checkpoint has none of {list(families)}, so it is none of Latent Diffusion; its keys begin with "
            f"{_some(found)}"
        )
    if unknown:
        raise ValueError(
            f"the checkpoint has {_some(unknown)}, which belong to none of {list(families)}; remove them, or load its "
            "networks one by one"
        )


def _some(keys: Sequence[str]) -> str:
    return f"{list(keys[:_SHOWN])}{' ...' * (len(keys) > _SHOWN)}"


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
