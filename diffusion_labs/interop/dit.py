"""Transformers in the checkpoints of the code that was released with DiT."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_labs.interop.dit_rules import dit_rules, refuse_settings
from diffusion_labs.interop.key_rules import Mismatch, load_foreign
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.transformer import DiT

SETTINGS = {"time_shift": 0, "time_scale": 1.0, "norm_eps": 1e-6, "feed_forward_eps": 1e-6}


def load_dit(
    model: DiT, weights: Mapping[str, Any] | str | Path, *, averaged: bool = True, strict: bool = True
) -> Mismatch:
    """Load a DiT from a released checkpoint, or from one that its training wrote.

    Such checkpoints do not hold the sizes, so the model is built first, for example by ``dit(**DITS["DiT-XL/2"])``.

    Args:
        model: from ``dit``.
        weights: the file, or its contents.
        averaged: of a checkpoint of the training take the moving averages ``ema``, and not ``model``.
        strict: see ``load_foreign``.

    Raises:
        ValueError: for weights of another model, naming the keys; or a file that holds more than weights.

    Example:
        >>> model = dit(**DITS["DiT-XL/2"])
        >>> load_dit(model, "DiT-XL-2-256x256.pt")
        Mismatch(missing=[], unexpected=[])
    """
    refuse_settings(model, SETTINGS, "the code of DiT")
    name = "ema" if averaged else "model"
    tensors: Mapping[str, Any] = weights if isinstance(weights, Mapping) else read_weights(Path(weights), within=name)
    return load_foreign(model, tensors.get(name, tensors), dit_rules(model), strict=strict)


def to_dit(model: DiT) -> dict[str, Tensor]:
    """The weights of a DiT by the names of the code that was released with it.

    Raises:
        ValueError: for a network that this code has not.
    """
    refuse_settings(model, SETTINGS, "the code of DiT")
    return dit_rules(model).to_theirs(model.state_dict())
