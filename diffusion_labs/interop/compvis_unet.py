"""U-Nets in the checkpoints of Latent Diffusion, Stable Diffusion and guided-diffusion."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_labs.interop.key_rules import Mismatch, load_foreign
from diffusion_labs.interop.unet_rules import compvis_unet_rules
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.adm_unet import ADMUNet

PREFIX, AVERAGED = "model.diffusion_model.", "model_ema."


def load_compvis_unet(
    model: ADMUNet, weights: Mapping[str, Tensor] | str | Path, *, averaged: bool = False, strict: bool = True
) -> Mismatch:
    """Load a U-Net from a checkpoint of its own, or from one of a whole diffusion model.

    Such checkpoints do not hold the sizes, so the model is built first, for example by
    ``ldm_unet(**LDM_UNETS["stable_diffusion_1"])``. Of a whole model the keys below ``model.diffusion_model.`` are
    taken.

    Args:
        model: from ``ldm_unet`` or ``adm_unet``.
        weights: the file, ``.ckpt`` or ``.safetensors``, or its tensors.
        averaged: take the moving averages below ``model_ema.``, whose keys have lost their dots.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys; or a file that holds more than weights.

    Example:
        >>> model = ldm_unet(**LDM_UNETS["stable_diffusion_1"])
        >>> load_compvis_unet(model, "v1-5-pruned.ckpt", averaged=True)
        Mismatch(missing=[], unexpected=[])
    """
    tensors = weights if isinstance(weights, Mapping) else read_weights(Path(weights))
    rules = compvis_unet_rules()
    if averaged:
        names = {f"diffusion_model.{key}".replace(".", ""): key for key in rules.to_theirs(model.state_dict())}
        inside = {key.removeprefix(AVERAGED): value for key, value in tensors.items() if key.startswith(AVERAGED)}
        for own in ("decay", "num_updates"):
            inside.pop(own, None)
        own_tensors = {names.get(key, key): value for key, value in inside.items()}
    else:
        inside = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
        own_tensors = inside or dict(tensors)
    return load_foreign(model, own_tensors, rules, strict=strict)


def to_compvis_unet(model: ADMUNet, *, conv_projections: bool = True) -> dict[str, Tensor]:
    """The weights of a U-Net by the names of Latent Diffusion and guided-diffusion, without a prefix.

    Args:
        model: from ``ldm_unet`` or ``adm_unet``.
        conv_projections: see ``compvis_unet_rules``.

    Raises:
        ValueError: for a network with parts that have no names there.
    """
    return compvis_unet_rules(conv_projections=conv_projections).to_theirs(model.state_dict())
