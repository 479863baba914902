"""What latent diffusion needs of an autoencoder."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from diffusion_labs.models.autoencoder import DiagonalGaussian


@runtime_checkable
class LatentAutoencoder(Protocol):
    """A module between images and latents: ``AutoencoderKL``, ``VQModel``, or one of yours.

    Attributes:
        factor: pixels a side of a latent.
        latent_channels: channels of latents.
    """

    factor: int
    latent_channels: int
    training: bool

    def posterior(self, x: Tensor) -> DiagonalGaussian:
        """The distribution of the latents of images."""

    def decode(self, z: Tensor) -> Tensor:
        """The images of latents."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As a module's."""

    def train(self, mode: bool = True) -> Any:
        """As a module's."""
