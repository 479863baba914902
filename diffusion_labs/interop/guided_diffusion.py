"""The released networks of ADM: the checkpoints of guided-diffusion."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_labs.interop.key_rules import KeyRules, Mismatch, load_foreign
from diffusion_labs.interop.unet_rules import compvis_unet_rules, guided_classifier_rules
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.adm_unet import ADMClassifier, ADMUNet

_RULES: dict[type, KeyRules] = {
    ADMUNet: compvis_unet_rules(null_class=False),
    ADMClassifier: guided_classifier_rules(),
}


def load_guided_diffusion(
    model: ADMUNet | ADMClassifier, weights: Mapping[str, Tensor] | str | Path, *, strict: bool = True
) -> Mismatch:
    """Load a U-Net or a classifier of ADM.

    Such checkpoints hold neither the sizes nor the order of the attention's heads, so the model is built first, by
    ``adm_unet(**ADM_UNETS["imagenet_64"])`` or ``adm_classifier(**ADM_CLASSIFIERS["imagenet_64"])``. A conditional
    network has no null class there. Here it gets one, of zeros: an absent class then adds nothing to the time.

    Args:
        model: from ``adm_unet`` or ``adm_classifier``.
        weights: the file, or its tensors.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys; or a file that holds more than weights.

    Example:
        >>> model = adm_unet(**ADM_UNETS["imagenet_64"])
        >>> load_guided_diffusion(model, "64x64_diffusion.pt")
        Mismatch(missing=[], unexpected=[])
    """
    tensors = weights if isinstance(weights, Mapping) else read_weights(Path(weights))
    return load_foreign(model, tensors, _RULES[type(model)], strict=strict)


def to_guided_diffusion(model: ADMUNet | ADMClassifier) -> dict[str, Tensor]:
    """The weights of a U-Net or classifier by the names of guided-diffusion, without the null class.

    Raises:
        ValueError: for a network with parts that have no names there.
    """
    return _RULES[type(model)].to_theirs(model.state_dict())
