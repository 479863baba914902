"""The weights of LPIPS."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, load_foreign
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.losses.lpips import LPIPS

HEAD = TensorChange(lambda weight: weight.flatten(), lambda weight: weight.reshape(1, -1, 1, 1))
INSIDE = "perceptual_loss."  # where it is in the checkpoints of Latent Diffusion


def load_lpips(*weights: Mapping[str, Tensor] | str | Path) -> LPIPS:
    """LPIPS with the authors' weights, from one file or several.

    The weights of VGG16 and those of the channels may be in one file (a ``state_dict`` of the ``lpips`` package or of
    taming-transformers, or a checkpoint of an autoencoder that was trained with it), or in two: torchvision's
    ``vgg16-397923af.pth`` and ``vgg.pth`` of ``lpips`` version 0.1.

    Args:
        weights: the files, ``.pth``, ``.ckpt`` or ``.safetensors``, or their tensors.

    Raises:
        ValueError: if keys are missing or unexpected, which are named; or for a file that holds more than weights.

    Example:
        >>> perceptual = load_lpips("vgg16-397923af.pth", "vgg.pth")
    """
    tensors: dict[str, Tensor] = {}
    for part in weights:
        tensors |= part if isinstance(part, Mapping) else read_weights(Path(part))
    inside = {key.partition(INSIDE)[2]: value for key, value in tensors.items() if INSIDE in key}
    model = LPIPS()
    load_foreign(model, inside or tensors, lpips_rules(model))
    return model


def to_lpips(model: LPIPS) -> dict[str, Tensor]:
    """The weights by the names of the ``lpips`` package."""
    return lpips_rules(model).to_theirs(model.state_dict())


def lpips_rules(model: LPIPS) -> KeyRules:
    """The keys of the ``lpips`` package; torchvision's for VGG16, and heads without dropout, are older spellings."""
    places = [key.split(".")[1:3] for key in model.stages.state_dict(prefix="stages.") if key.endswith("weight")]
    return KeyRules(
        [
            KeyRule("net.slice{stage+1}.{layer}.*", "stages.{stage}.{layer}.*"),
            KeyRule("lin{stage}.model.1.weight", "heads.{stage}", HEAD),
        ],
        ignored=["scaling_layer.*", "lins.{stage}.model.{i}.weight", "classifier.{i}.*"],
        older=[
            *(KeyRule(f"features.{layer}.*", f"net.slice{int(stage) + 1}.{layer}.*") for stage, layer in places),
            KeyRule("lin{stage}.model.0.weight", "lin{stage}.model.1.weight"),
        ],
    )
