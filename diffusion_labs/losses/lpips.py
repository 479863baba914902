"""The learned perceptual distance of images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs.losses.feature_loss import FeatureLoss

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class LPIPS(FeatureLoss):
    """The learned perceptual image patch similarity, version 0.1 with VGG16 (arXiv 1801.03924, Eq. 1).

    ``sum_l mean_p sum_c w_lc (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2`` with the features of VGG16 after the last
    ReLU of each of its five stages, and a learned weight for each of their channels. It has random weights until those
    of the authors are loaded, by ``load_lpips``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        network, layers = _vgg16()
        super().__init__(network, layers)
        self.heads = nn.ParameterList([torch.rand(widths[-1]) / widths[-1] for widths in VGG16_STAGES])
        self.requires_grad_(False)
        # of ImageNet's images in [-1, 1]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """The distance of each pair of images in [-1, 1], of three channels, or of one, which is repeated.

        Raises:
            ValueError: for other channels, or for images under 16 pixels a side.
        """
        if x.shape[1] not in (1, 3):
            raise ValueError(f"x has {x.shape[1]} channels, but must have 3, or 1 for grey; choose the colours of x")
        if min(x.shape[2:]) < 16:
            raise ValueError(
                f"x has size {list(x.shape[2:])}, but every side must be at least 16, as VGG16 halves it four times; "
                "enlarge x, or use FeatureLoss with a smaller network"
            )
        x, y = ((image.expand(-1, 3, -1, -1) - self.shift) / self.scale for image in (x, y))
        distances = [
            (head[:, None] * difference).sum(1).mean(1)
            for head, difference in zip(self.heads, self.differences(x, y), strict=True)
        ]
        return torch.stack(distances).sum(0)


def _vgg16() -> tuple[nn.Sequential, list[int]]:
    """The convolutions of VGG16 (arXiv 1409.1556, Table 1, D), and the number of the last layer of each stage."""
    layers: list[nn.Module] = []
    ends, before = [], 3
    for widths in VGG16_STAGES:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        ends.append(len(layers) - 1)
    return nn.Sequential(*layers), ends
