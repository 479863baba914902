"""The autoencoder with quantised latents."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion_labs.models.autoencoder.autoencoder import Autoencoder
from diffusion_labs.models.autoencoder.coders import Decoder, Encoder
from diffusion_labs.models.autoencoder.diagonal_gaussian import DiagonalGaussian
from diffusion_labs.models.autoencoder.vector_quantizer import Quantized, VectorQuantizer


class VQOutput(NamedTuple):
    """What training needs.

    Attributes:
        reconstruction: the images again, ``[b, c, *size]``.
        quantized: the codes, their numbers and their loss.
    """

    reconstruction: Tensor
    quantized: Quantized


class VQModel(Autoencoder):
    """The VQ-regularised autoencoder of Latent Diffusion (arXiv 2112.10752, section 3.1 and appendix G).

    Diffusion runs on the latents before they are quantised, and the quantisation is the first layer of the decoder:
    ``encode`` gives the former, and ``decode`` begins with the latter. ``vq_model`` builds it from sizes.

    Args:
        encoder: see ``Autoencoder``.
        decoder: see ``Autoencoder``.
        quant_conv: see ``Autoencoder``.
        post_quant_conv: see ``Autoencoder``.
        quantizer: replaces latents by codes.
        factor: see ``Autoencoder``.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        quant_conv: nn.Module,
        post_quant_conv: nn.Module,
        quantizer: VectorQuantizer,
        *,
        factor: int = 1,
    ) -> None:
        super().__init__(encoder, decoder, quant_conv, post_quant_conv, factor=factor)
        self.quantizer = quantizer

    def encode(self, x: Float[Tensor, "b c *d"]) -> Float[Tensor, "b l *e"]:
        """The latents ``[b, latent_channels, *size / factor]`` of images, not yet quantised.

        Raises:
            ValueError: for x of the wrong shape or dtype.
        """
        return self.describe(x)

    def posterior(self, x: Float[Tensor, "b c *d"]) -> DiagonalGaussian:
        """The distribution of the latents, as of every autoencoder: all of it at ``encode(x)``, which samples are."""
        return DiagonalGaussian.point(self.encode(x))

    def decode(self, h: Float[Tensor, "b l *e"]) -> Float[Tensor, "b o *d"]:
        """The images of latents, which are quantised first.

        Raises:
            ValueError: for h of the wrong shape or dtype.
        """
        self._check("h", h, self.latent_channels)
        return self.render(self.quantizer(h).z)

    def decode_indices(self, indices: Int[Tensor, "b *e"]) -> Float[Tensor, "b o *d"]:
        """The images of codes, given by their numbers ``[b, *size / factor]``."""
        return self.render(self.quantizer.lookup(indices))

    def forward(self, x: Float[Tensor, "b c *d"]) -> VQOutput:
        """Encode, quantise and decode."""
        quantized = self.quantizer(self.encode(x))
        return VQOutput(self.render(quantized.z), quantized)
