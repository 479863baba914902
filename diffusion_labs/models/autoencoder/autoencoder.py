"""What the autoencoders have in common."""

from torch import Tensor, nn

from diffusion_labs.models.autoencoder.coders import Decoder, Encoder


class Autoencoder(nn.Module):
    """An encoder and a decoder, with a 1x1 convolution each between them and the latents.

    The input is cast to the dtype of the weights, and the output has the dtype of the input, so a network in half
    precision takes and gives float32.

    Args:
        encoder: from images to features.
        decoder: from features to images.
        quant_conv: from the encoder's features to what describes the latents.
        post_quant_conv: from latents to the decoder's features.
        factor: pixels a side of a latent: 2 to the number of downsamplings.

    Attributes:
        factor: as given.
        in_channels: channels of images.
        latent_channels: channels of latents.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        quant_conv: nn.Module,
        post_quant_conv: nn.Module,
        *,
        factor: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.quant_conv = quant_conv
        self.post_quant_conv = post_quant_conv
        self.factor = factor
        self.in_channels = encoder.conv_in.in_channels
        self.latent_channels: int = getattr(post_quant_conv, "in_channels", decoder.conv_in.in_channels)

    def describe(self, x: Tensor) -> Tensor:
        """``quant_conv(encoder(x))``: what the latents of images ``[b, in_channels, *size]`` are made from.

        Raises:
            ValueError: for x of the wrong shape or dtype.
        """
        self._check("x", x, self.in_channels)
        if any(side % self.factor != 0 for side in x.shape[2:]):
            raise ValueError(
                f"x has size {list(x.shape[2:])}, but every side must be a multiple of {self.factor}, the pixels a "
                "side of a latent; pad or resize x"
            )
        return self.quant_conv(self.encoder(x.to(self.encoder.conv_in.weight.dtype))).to(x.dtype)

    def render(self, z: Tensor) -> Tensor:
        """``decoder(post_quant_conv(z))``: the images of latents ``[b, latent_channels, *size]``.

        Raises:
            ValueError: for z of the wrong shape or dtype.
        """
        self._check("z", z, self.latent_channels)
        return self.decoder(self.post_quant_conv(z.to(self.decoder.conv_in.weight.dtype))).to(z.dtype)

    @property
    def last_layer(self) -> nn.Module:
        """The convolution to the images, by whose gradients training balances its losses."""
        return self.decoder.head[-1]

    def _check(self, name: str, value: Tensor, channels: int) -> None:
        dims = self.encoder.conv_in.weight.dim() - 2
        if value.dim() != dims + 2 or value.shape[1] != channels:
            raise ValueError(
                f"{name} has shape {list(value.shape)}, but must be [b, {channels}{', side' * dims}]; reshape it, or "
                "build the network with other channels or dims"
            )
        if not value.dtype.is_floating_point:
            raise ValueError(f"{name} has dtype {value.dtype}, but must be floating point; use .float()")
