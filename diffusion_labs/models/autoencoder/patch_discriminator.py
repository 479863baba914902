"""The discriminator of the autoencoders' training."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with weights from N(1, 0.02), as in pix2pix."""
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


class PatchDiscriminator(nn.Module):
    """Says of each patch of an image whether it is real: the PatchGAN of pix2pix (arXiv 1611.07004, appendix 6.1.2).

    4x4 convolutions with leaky ReLUs of slope 0.2: ``num_layers`` that halve the image, then two that do not, the last
    of which gives the logits. All but the first and the last are followed by a norm. With three halvings a logit sees
    70 x 70 pixels. Weights start from N(0, 0.02).

    Args:
        in_channels: channels of images.
        channels: of the first convolution; doubled by each of the next, up to eightfold.
        num_layers: convolutions that halve the image.
        norm: makes the norm of some channels; batch normalisation in the papers. ``GroupNorm`` suits small batches and
            accumulated gradients, as it keeps the images apart.

    Raises:
        ValueError: for fewer than one layer.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        channels: int = 64,
        num_layers: int = 3,
        norm: Callable[[int], nn.Module] = batch_norm,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers ({num_layers}) must be at least 1: the convolutions that halve the image")
        self.smallest = 3 * 2**num_layers
        layers: list[nn.Module] = [_conv(in_channels, channels, stride=2), nn.LeakyReLU(0.2)]
        width = channels
        for i in range(1, num_layers + 1):
            before, width = width, channels * min(2**i, 8)
            stride = 2 if i < num_layers else 1
            layers += [_conv(before, width, stride=stride, bias=False), norm(width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _conv(width, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 p q"]:
        """The logits of the patches, high for real ones.

        Raises:
            ValueError: for images smaller than one patch.
        """
        if min(x.shape[2:]) < self.smallest:
            raise ValueError(
                f"x has size {list(x.shape[2:])}, but every side must be at least {self.smallest}; use a "
                "discriminator with a smaller num_layers"
            )
        return self.layers(x)


def _conv(in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, 4, stride=stride, padding=1, bias=bias)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer
