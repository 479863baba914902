"""Modules whose numbers keep their precision."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PreciseModule(nn.Module):
    """Base class: buffers follow the module between devices, but never change their dtype.

    They are float64, except on devices without it, where they are float32. They also stay real for a
    model on the meta device.
    """

    def precise(self, t: Tensor) -> Tensor:
        """``t`` in float64, or in float32 on devices without it."""
        return t.to(torch.float32 if t.device.type == "mps" else torch.float64)

    def on(self, device: torch.device, t: Tensor) -> Tensor:
        """``t`` on a device; in float32, if it was float64, on devices without it."""
        return t.float().to(device) if device.type == "mps" and t.dtype == torch.float64 else t.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PreciseModule":
        """Move buffers as ``fn`` moves tensors, but keep their dtype, and keep them off the meta device."""
        buffers = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        self._buffers.clear()
        super()._apply(fn, recurse)
        for name, buffer in buffers.items():
            device = fn(torch.empty(0, device=buffer.device)).device
            if device.type == "mps":  # has no float64
                buffer = buffer.float()
            self._buffers[name] = buffer if device.type == "meta" else buffer.to(device)
        return self
