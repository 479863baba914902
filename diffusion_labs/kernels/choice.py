"""Whether a call is one for the kernels."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from diffusion_labs.kernels.build import available


def suited(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the tensors are of the kind that kernels are made for: float32 on a CPU, and nothing but tensors.

    Not where PyTorch has to look into the operation: autocast, transforms of functions, tangents of tensors, subclasses
    that are split over processes or have no memory, and exported programs, which must run without this library.
    """
    for tensor in (x, *others):
        if tensor is not None and not (
            tensor.is_cpu and tensor.dtype is torch.float32 and type(tensor) in (Tensor, torch.nn.Parameter)
        ):
            return False
    return (
        not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and available()
    )
