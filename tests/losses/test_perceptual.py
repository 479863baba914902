"""Perceptual distances against their formula, computed in another way."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl


def normalised(features: Tensor) -> Tensor:
    return features / features.pow(2).sum(1, keepdim=True).sqrt()


def test_lpips_is_its_formula_on_the_layers_of_vgg16() -> None:
    """Convolutions 2, 4, 7, 10 and 13 with their ReLUs, by hand from the parameters in their order."""
    loss = dl.LPIPS().double()
    for convolution in (module for module in loss.modules() if isinstance(module, nn.Conv2d)):
        nn.init.normal_(convolution.bias, std=0.1)
    x, y = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    weights = [value for name, value in loss.named_parameters() if name.startswith("stages")]
    mean = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float32).double()
    std = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float32).double()
    f, g = ((image.movedim(1, -1) - mean).div(std).movedim(-1, 1) for image in (x, y))
    expected, heads = torch.zeros(2, dtype=torch.float64), iter(loss.heads)
    for i, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True), 1):
        f, g = (F.conv2d(h, weight, bias, padding=1).clamp(min=0) for h in (f, g))
        if i in (2, 4, 7, 10, 13):
            difference = (normalised(f) - normalised(g)).nan_to_num() ** 2
            expected += torch.einsum("c,bchw->b", next(heads), difference) / difference[0, 0].numel()
            f, g = (F.max_pool2d(h, 2) for h in (f, g))
    assert (expected > 1e-3).all()
    torch.testing.assert_close(loss(x, y), expected)
    assert sum(value.numel() for value in weights) == 14_714_688  # torchvision's VGG16 without its classifier


def test_grey_images_are_repeated() -> None:
    loss = dl.LPIPS()
    x, y = torch.rand(2, 2, 1, 16, 16)
    torch.testing.assert_close(loss(x, y), loss(x.repeat(1, 3, 1, 1), y.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="x has 4 channels, but must have 3, or 1"):
        loss(torch.zeros(1, 4, 16, 16), torch.zeros(1, 4, 16, 16))
    with pytest.raises(ValueError, match=r"x has size \[8, 16\], but every side must be at least 16"):
        loss(torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16))


def test_the_distance_in_features_is_its_formula() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.Tanh())
    for value in network[2].parameters():
        nn.init.uniform_(value, 0.5, 1.0)
    network[2].running_var.fill_(2.0)
    x, y = torch.rand(2, 3, 1, 9, 9)
    loss = dl.FeatureLoss(network, [1, 4])
    loss.train()  # the statistics of the batch would give another distance
    network.eval()
    expected = torch.zeros(3)
    for end in (2, 5):
        f, g = network[:end](x), network[:end](y)
        cosine = F.cosine_similarity(f, g, dim=1)
        both = f.norm(dim=1).gt(0).float() + g.norm(dim=1).gt(0)  # |f/|f| - g/|g||^2 = 2 - 2 cos, unless one is 0
        expected += (both - 2 * cosine).mean((1, 2))
    torch.testing.assert_close(loss(x, y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [dl.LPIPS, lambda: dl.FeatureLoss(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), [1])])
def test_it_is_never_trained_and_has_finite_gradients_where_features_vanish(make) -> None:
    loss = make()
    assert not any(value.requires_grad for value in loss.parameters())
    for convolution in (module for module in loss.modules() if isinstance(module, nn.Conv2d)):
        nn.init.constant_(convolution.bias, -0.3)
    x, y = torch.rand(2, 2, 3, 16, 16) * 2 - 1
    y.requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(x, y).sum(), y)
    assert gradient.isfinite().all()
    assert loss(x, x).eq(0).all()


def test_the_network_is_copied() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    loss = dl.FeatureLoss(network, [1])
    x, y = torch.rand(2, 1, 1, 8, 8)
    before = loss(x, y)
    nn.init.zeros_(network[0].weight)
    assert torch.equal(loss(x, y), before)
    assert network[0].weight.requires_grad


@pytest.mark.parametrize("layers", [[], [1, 1], [1, 0], [2], [-1]])
def test_layers_that_are_none_are_named(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="must rise and be between 0 and 1"):
        dl.FeatureLoss(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), layers)


def test_the_features_of_the_classifier_of_the_metrics_serve() -> None:
    """A distance grows with the noise that is added to a digit."""
    from diffusion_labs.metrics.classifier import ImageClassifier

    loss = dl.FeatureLoss(ImageClassifier(1, 16, 10).convolutions, [2, 5])
    x = torch.rand(4, 1, 16, 16) * 2 - 1
    noise = torch.randn_like(x)
    distances = torch.stack([loss(x, x + scale * noise).mean() for scale in (0.0, 0.1, 0.3, 1.0)])
    assert (distances.diff() > 0).all()
