"""Vectors and tokens among the conditional inputs; each may be absent."""

import torch
from torch import Tensor

from diffusion_labs.conditioning import ConditionalInputs, mask_of


def vector_of(conditions: ConditionalInputs, name: str, width: int, timestep: Tensor) -> Tensor:
    """A vector condition, ``[b, width]``; zeros if it is absent."""
    shape = [timestep.shape[0], width]
    vector = conditions.get(name)
    if vector is None:
        return torch.zeros(shape, device=timestep.device)
    if list(vector.shape) != shape:
        raise ValueError(
            f"{name!r} has shape {list(vector.shape)}, but must be {shape}: one vector of that width for each sample"
        )
    return vector


def tokens_of(conditions: ConditionalInputs, name: str, width: int, timestep: Tensor) -> tuple[Tensor, Tensor | None]:
    """The tokens of a condition ``[b, n, width]`` and their mask, bool ``[b, n]``; one zero token if it is absent."""
    batch = timestep.shape[0]
    tokens, mask = conditions.get(name), conditions.get(mask_of(name))
    if tokens is None:
        return torch.zeros(batch, 1, width, device=timestep.device), None
    if tokens.dim() != 3 or tokens.shape[0] != batch or tokens.shape[2] != width:
        raise ValueError(
            f"{name!r} has shape {list(tokens.shape)}, but must be [{batch}, n, {width}]: n tokens "
            "of that width for each sample"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != tokens.shape[:2]):
        raise ValueError(
            f"'{mask_of(name)}' is {mask.dtype} of shape {list(mask.shape)}, but must be torch.bool of "
            f"shape {list(tokens.shape[:2])}: true for the valid tokens of {name!r}"
        )
    return tokens, mask
