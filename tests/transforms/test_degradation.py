"""Crops that are aligned to the low resolution, and the faults of BSR degradation."""

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.transforms.bsr_degradation import blur, gaussian_kernel, there_and_back
from diffusion_labs.transforms.jpeg import jpeg
from diffusion_labs.transforms.super_resolution_transform import gaussian_blur

Image = pytest.importorskip("PIL.Image")


def picture(channels: int = 3, height: int = 48, width: int = 40) -> Tensor:
    """Smooth colours, an edge and some texture, ``[1, c, h, w]`` in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    phases = torch.arange(channels).reshape(-1, 1, 1)
    smooth = torch.sin(5 * x + 3 * y + phases) * 0.6
    texture = 0.15 * torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))
    return (smooth + 0.4 * (x + y > 1) + texture).clamp(-1, 1)[None]


# Crops


def numbered(height: int, width: int) -> Tensor:
    """Images of which each pixel says where it is, ``[500, 2, h, w]``."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x]).expand(500, -1, -1, -1).float()


def test_a_crop_is_a_part_of_its_image_with_aligned_corners_anywhere() -> None:
    crop = dl.RandomCrop(8, multiple=4)({"x": numbered(17, 24)})["x"]
    corners = crop[:, :, :1, :1]
    assert torch.equal(crop - corners, numbered(8, 8))
    pairs, counts = corners.flatten(1).unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[y, x] for y in (0, 4, 8) for x in (0, 4, 8, 12, 16)]
    expected = 500 / len(pairs)
    assert ((counts - expected) ** 2 / expected).sum() < 14 + 5 * 28**0.5  # chi-squared


def test_an_aligned_crop_at_low_resolution_is_the_low_resolution_of_the_crop() -> None:
    """The order of training: crop, then downsample; away from the border it is what the whole image would give."""
    x = torch.cat([numbered(32, 32)[:4], torch.randn(4, 1, 32, 32)], dim=1)
    transform = nn.Sequential(dl.RandomCrop(16, multiple=4), dl.SuperResolutionTransform(4))
    result = transform({"x": x})
    whole = dl.SuperResolutionTransform(8)({"x": x})["low_resolution"]
    for i, (top, left) in enumerate((result["x"][:, :2, 0, 0] / 4).long().tolist()):
        part = whole[i, :, top : top + 4, left : left + 4]
        torch.testing.assert_close(result["low_resolution"][i, :, 1:-1, 1:-1], part[:, 1:-1, 1:-1])


def test_impossible_crops_are_named() -> None:
    with pytest.raises(ValueError, match=r"size \(6\) must be a positive multiple of multiple \(4\)"):
        dl.RandomCrop(6, multiple=4)
    with pytest.raises(ValueError, match="crops of 8 need images"):
        dl.RandomCrop(8)({"x": torch.zeros(1, 1, 8, 7)})


# JPEG


def through_pil(x: Tensor, quality: int) -> Tensor:
    bytes_ = ((x[0] + 1) * 127.5).round().to(torch.uint8)
    mode = {1: "L", 3: "RGB"}[len(bytes_)]
    file = io.BytesIO()
    array = bytes_[0].numpy() if mode == "L" else bytes_.permute(1, 2, 0).numpy()
    Image.fromarray(array, mode).save(file, "JPEG", quality=quality)
    decoded = torch.tensor(list(Image.open(file).convert(mode).tobytes()), dtype=torch.float32)
    decoded = decoded.reshape(*x.shape[2:], len(bytes_)).permute(2, 0, 1)[None]
    return decoded / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / (a - b).square().mean().item())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 49, 75, 95])
def test_jpeg_loses_what_that_of_pil_loses(channels: int, quality: int) -> None:
    """Of sides that are no multiples of a block. What differs is the rounding on the way, below what is lost."""
    x = picture(channels, 44, 39)
    ours, theirs = jpeg(x, torch.tensor([float(quality)])), through_pil(x, quality)
    assert abs(psnr(ours, x) - psnr(theirs, x)) < 0.15
    assert psnr(ours, theirs) > psnr(theirs, x) + 6
    assert torch.equal(((ours + 1) * 127.5).round() / 127.5 - 1, ours)


def test_each_image_has_its_own_quality() -> None:
    x, qualities = picture().expand(3, -1, -1, -1), torch.tensor([20.0, 60.0, 95.0])
    together = jpeg(x, qualities)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], jpeg(x[:1], qualities[i : i + 1]))
    assert psnr(together[0], x[0]) < psnr(together[1], x[0]) < psnr(together[2], x[0])


# The other faults


def test_a_round_kernel_is_that_of_the_gaussian_blur() -> None:
    x, sigma = picture().expand(2, -1, -1, -1), torch.tensor([0.0, 0.9])
    kernel = gaussian_kernel(sigma, sigma, torch.tensor([0.3, 1.2]), 7)
    torch.testing.assert_close(blur(x, kernel), gaussian_blur(x, sigma, 7), atol=1e-5, rtol=0)


def test_a_long_kernel_has_its_covariance() -> None:
    first, second, angle = 1.3, 0.8, 0.5
    kernel = gaussian_kernel(*(torch.tensor([v], dtype=torch.float64) for v in (first, second, angle)), 25)[0]
    offsets = torch.arange(25, dtype=torch.float64) - 12
    y, x = offsets[:, None].expand(25, 25), offsets.expand(25, 25)
    covariance = torch.tensor([[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)])
    axis = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    across = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    expected = first**2 * torch.outer(axis, axis) + second**2 * torch.outer(across, across)
    torch.testing.assert_close(covariance.double(), expected, atol=1e-3, rtol=0)


def test_there_and_back_is_two_resizings() -> None:
    x, factors = torch.randn(4, 2, 24, 17), torch.tensor([1.0, 1.37, 2.0, 5.0])
    result = there_and_back(x, factors)
    for i, factor in enumerate(factors.tolist()):
        small = [round(side / factor) for side in x.shape[2:]]
        down = F.interpolate(x[i : i + 1], size=small, mode="bilinear", antialias=True)
        torch.testing.assert_close(
            result[i : i + 1], F.interpolate(down, size=x.shape[2:], mode="bilinear"), atol=1e-5, rtol=1e-5
        )


OFF = {"blur_sigma": (0.0, 0.0), "resize": (1.0, 1.0), "noise_sigma": (0.0, 0.0), "jpeg_quality": (100.0, 100.0)}


def test_without_faults_only_the_rounding_is_left() -> None:
    x = picture(1)
    degraded = dl.BSRDegradation(**OFF)({"low_resolution": x})["low_resolution"]
    assert (degraded - x).abs().max() < 3 / 127.5


def test_images_of_a_batch_have_faults_and_orders_of_their_own() -> None:
    """With fixed strengths and no noise, what differs is the order: blurred then resized, or resized then blurred."""
    x = (torch.rand(1, 1, 16, 16) * 1.8 - 0.9).expand(200, -1, -1, -1)
    fixed = {**OFF, "blur_sigma": (0.8, 0.8), "resize": (2.0, 2.0)}
    degraded = dl.BSRDegradation(**fixed)({"low_resolution": x})["low_resolution"]
    kernel = gaussian_kernel(*torch.tensor([[0.8], [0.8], [0.0]]), 7)
    first = there_and_back(blur(x[:1], kernel), torch.tensor([2.0]))
    last = blur(there_and_back(x[:1], torch.tensor([2.0])), kernel)
    distances = torch.stack([(degraded - each).square().mean((1, 2, 3)).sqrt() for each in (first, last)])
    assert distances.amin(0).max() < distances.amax(0).min() / 2
    assert 60 < (distances[0] < distances[1]).sum() < 140


def test_noise_is_grey_for_half_of_the_images() -> None:
    x = torch.zeros(200, 3, 16, 16)
    noisy = {**OFF, "noise_sigma": (0.2, 0.2)}
    degraded = dl.BSRDegradation(**noisy)({"low_resolution": x})["low_resolution"]
    spread = degraded.std(1).mean((1, 2))  # over the channels
    grey = spread < 0.01
    assert 60 < grey.sum() < 140
    assert abs(degraded[grey].std() - 0.2) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur_sigma": (0.6, 0.4)}, "blur_sigma"),
        ({"resize": (0.5, 2.0)}, "resize"),
        ({"jpeg_quality": (50, 101)}, "jpeg_quality"),
        ({"blur_kernel_size": 4}, "odd"),
    ],
)
def test_impossible_faults_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.BSRDegradation(**options)


def test_images_that_jpeg_does_not_know_are_named() -> None:
    with pytest.raises(ValueError, match=r"must be \[b, c, h, w\]"):
        dl.BSRDegradation()({"low_resolution": torch.zeros(1, 8, 8)})
    with pytest.raises(ValueError, match="2 channels"):
        dl.BSRDegradation()({"low_resolution": torch.zeros(1, 2, 8, 8)})
    with pytest.raises(ValueError, match="normalise the images"):
        dl.BSRDegradation()({"low_resolution": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)})
