"""The autoencoder with normally distributed latents."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from diffusion_labs.models.autoencoder.autoencoder import Autoencoder
from diffusion_labs.models.autoencoder.diagonal_gaussian import DiagonalGaussian
from diffusion_labs.randomness import Generators


class KLOutput(NamedTuple):
    """What training needs.

    Attributes:
        reconstruction: the images again, ``[b, c, *size]``.
        posterior: the distribution of the latents.
    """

    reconstruction: Tensor
    posterior: DiagonalGaussian


class AutoencoderKL(Autoencoder):
    """The KL-regularised autoencoder of Latent Diffusion (arXiv 2112.10752, section 3.1 and appendix G).

    Built from its parts, see ``Autoencoder``; ``autoencoder_kl`` builds it from sizes. ``quant_conv`` gives the means
    and the log-variances of the latents, so it has twice as many channels as they have.

    Example:
        >>> model = autoencoder_kl(in_channels=1, channels=(32, 64), latent_channels=4)
        >>> x = torch.randn(2, 1, 16, 16)
        >>> z = model.encode(x).mode()
        >>> z.shape
        torch.Size([2, 4, 8, 8])
        >>> model.decode(z).shape
        torch.Size([2, 1, 16, 16])
    """

    def encode(self, x: Float[Tensor, "b c *d"]) -> DiagonalGaussian:
        """The distribution of the latents ``[b, latent_channels, *size / factor]`` of images.

        Raises:
            ValueError: for x of the wrong shape or dtype.
        """
        return DiagonalGaussian.of(self.describe(x))

    def posterior(self, x: Float[Tensor, "b c *d"]) -> DiagonalGaussian:
        """The distribution of the latents, as of every autoencoder: ``encode(x)``."""
        return self.encode(x)

    def decode(self, z: Float[Tensor, "b c *e"]) -> Float[Tensor, "b o *d"]:
        """The images of latents.

        Raises:
            ValueError: for z of the wrong shape or dtype.
        """
        return self.render(z)

    def forward(self, x: Float[Tensor, "b c *d"], generator: Generators = None) -> KLOutput:
        """Encode, sample and decode, in train and eval mode alike.

        Without the noise of sampling, a reconstruction is ``decode(encode(x).mode())``.
        """
        posterior = self.encode(x)
        z = DiagonalGaussian.sample(posterior, generator)  # so written, it compiles with the tests' shape checks, too
        return KLOutput(self.decode(z), posterior)
