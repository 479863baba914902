"""Autoencoders in the checkpoints of Latent Diffusion and Stable Diffusion."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffusion_labs.interop.autoencoder_rules import compvis_autoencoder_rules
from diffusion_labs.interop.key_rules import Mismatch, load_foreign
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.autoencoder.autoencoder import Autoencoder

PREFIX = "first_stage_model."
NOT_OF_THE_NETWORK = ("loss.", "model_ema.")


def load_compvis_autoencoder(
    model: Autoencoder, weights: Mapping[str, Tensor] | str | Path, *, strict: bool = True
) -> Mismatch:
    """Load an autoencoder from a checkpoint of its own, or from one of a whole diffusion model.

    Such checkpoints do not hold the sizes, so the model is built first, for example by ``kl_f8()`` for Stable
    Diffusion. Of a whole model the keys below ``first_stage_model.`` are taken. The networks of the training loss
    (``loss.``) and averages of the weights (``model_ema.``) are left out.

    Args:
        model: an ``AutoencoderKL`` or ``VQModel``.
        weights: the file, ``.ckpt`` or ``.safetensors``, or its tensors.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys; or a file that holds more than weights.

    Example:
        >>> model = kl_f8()
        >>> load_compvis_autoencoder(model, "vae-ft-mse-840000-ema-pruned.ckpt")
        Mismatch(missing=[], unexpected=[])
    """
    tensors = weights if isinstance(weights, Mapping) else read_weights(Path(weights))
    inside = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    own = {key: value for key, value in (inside or tensors).items() if not key.startswith(NOT_OF_THE_NETWORK)}
    return load_foreign(model, own, compvis_autoencoder_rules(len(model.decoder.levels)), strict=strict)


def to_compvis_autoencoder(model: Autoencoder) -> dict[str, Tensor]:
    """The weights of an autoencoder by the names of Latent Diffusion, without a prefix."""
    return compvis_autoencoder_rules(len(model.decoder.levels)).to_theirs(model.state_dict())
