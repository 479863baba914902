"""Where a run computes, and in which precision."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["auto", "fp32", "bf16"]


def find_device(name: str) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: if there is none on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device '{name}' cannot be used on this machine: {reason}") from error
    return device


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on ``device``."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether products are computed in bfloat16; ``"auto"`` is where the device does so fast, which CPUs do not."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Autocast to bfloat16, or none; weights and their gradients are float32 in both."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bfloat16(precision, device))
