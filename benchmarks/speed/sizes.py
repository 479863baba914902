"""The work that every library is given: one U-Net, and its FLOPs."""

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion_labs.kernels.build import SWITCH

Call = Callable[[Tensor, Tensor], Tensor]
"""From images or noise, ``[b, 3, size, size]``, and classes, ``[b]``, to a loss or to samples."""


@dataclass(frozen=True)
class Sizes:
    """Of a U-Net with attention at all levels but the top one, for images with classes.

    Attributes:
        width: channels of the top level.
        mults: channels of each level in units of ``width``.
        num_res_blocks: residual blocks per level of the encoder.
        size: height and width of the images.
        classes: how many there are.
        dropout: in residual blocks; torchmultimodal's is 0.1 and cannot be set.
    """

    width: int = 32
    mults: Sequence[int] = (1, 2, 3, 4)
    num_res_blocks: int = 2
    size: int = 32
    classes: int = 10
    dropout: float = 0.1

    def images(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Images and classes."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(batch_size, 3, self.size, self.size, generator=generator) * 2 - 1
        return x, torch.arange(batch_size) % self.classes


QUICK = {"mults": (1, 2), "num_res_blocks": 1, "size": 16}  # sizes to try a benchmark with


class Library(Protocol):
    """A library: its U-Net, its training and its sampling, each as its users write them.

    Attributes:
        name: of the library.
        package: the name by which it is imported.
    """

    name: str
    package: str

    def widths(self, width: int) -> Sequence[int]:
        """The widths among which one is chosen to do the work of ours with ``width``."""

    def network(self, sizes: Sizes) -> nn.Module:
        """The U-Net with random weights."""

    def loss(self, network: nn.Module, sizes: Sizes) -> Call:
        """The mean squared error of the predicted noise, at random steps of a linear schedule of 1,000."""

    def sample(self, network: nn.Module, sizes: Sizes, steps: int, guidance_scale: float) -> Call:
        """DDIM, with classifier-free guidance: 1 is none."""


def matched(library: Library, sizes: Sizes, flops: float) -> Sizes:
    """The sizes at which a training pass of a library's network is nearest to a number of FLOPs, which grow with it."""
    options = [replace(sizes, width=width) for width in library.widths(sizes.width)]
    if len(options) == 1:
        return options[0]
    above = bisect_left(options, flops, key=lambda option: training_flops(library, option))
    near = options[max(0, above - 1) : above + 1]
    return min(near, key=lambda option: abs(training_flops(library, option) - flops))


@cache
def training_flops(library: Library, sizes: Sizes) -> float:
    """FLOPs of a forward and a backward pass for one image: multiplications and additions of products of matrices."""
    network = library.network(sizes).train()
    counter = FlopCounterMode(display=False)
    nominal = patch.dict(os.environ, {SWITCH: "0"})  # kernels pad channels with zeros
    with nominal, counter, sdpa_kernel(SDPBackend.MATH):  # which it counts on every device
        library.loss(network, sizes)(*sizes.images(1)).backward()
    return float(counter.get_total_flops())


def parameters(network: nn.Module) -> int:
    """How many there are."""
    return sum(parameter.numel() for parameter in network.parameters())


def trainer(library: Library, network: nn.Module, sizes: Sizes, batch_size: int) -> Callable[[], None]:
    """A training step: forward, loss, backward, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    loss, images = library.loss(network.train(), sizes), sizes.images(batch_size)

    def step() -> None:
        loss(*images).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
