"""The adapters that concatenate images to x, and the one that folds pixels."""

import pytest
import torch
import torch.nn.functional as F

import diffusion_labs as dl
from tests.catalogue import TinyNetwork
from tests.contracts.test_adapters import Recorder


def test_inpainting_gives_the_network_the_known_image_and_the_mask() -> None:
    network = Recorder(3)
    x, image = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = (torch.rand(2, 1, 4, 4) > 0.5).float()
    dl.InPainting(network, 3)(x, torch.zeros(2), {"mask": mask, "masked_image": image})
    assert torch.equal(network.calls[0][0], torch.cat([x, image, mask], 1))


def test_inpainting_in_the_order_of_stable_diffusion() -> None:
    network = Recorder(3)
    x, image = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = (torch.rand(2, 1, 4, 4) > 0.5).float()
    conditions = {"mask": mask, "masked_image": image}
    dl.InPainting(network, 3, join=dl.mask_then_image)(x, torch.zeros(2), conditions)
    assert torch.equal(network.calls[0][0], torch.cat([x, mask, image], 1))


def test_maps_are_concatenated_in_order_and_zeros_where_absent() -> None:
    network = Recorder(3)
    x, depth, edges = torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4), torch.randn(2, 2, 8, 8)
    model = dl.Concatenation(network, {"depth": 1, "edges": 2})
    model(x, torch.zeros(2), {"edges": edges, "depth": depth})
    averaged = F.avg_pool2d(edges, 2)
    torch.testing.assert_close(network.calls[0][0], torch.cat([x, depth, averaged], 1))
    model(x, torch.zeros(2), {"depth": depth})
    assert torch.equal(network.calls[1][0], torch.cat([x, depth, torch.zeros(2, 2, 4, 4)], 1))


def test_inpainting_without_a_mask_paints_everything() -> None:
    network = Recorder(3)
    x = torch.randn(2, 3, 4, 4)
    dl.InPainting(network, 3)(x, torch.zeros(2))
    assert torch.equal(network.calls[0][0], torch.cat([x, torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4)], 1))


def test_super_resolution_resizes_as_in_training() -> None:
    network = Recorder(3)
    x, low = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    dl.SuperResolution(network)(x, torch.zeros(2), {"low_resolution": low})
    resized = F.interpolate(low, (8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(network.calls[0][0], torch.cat([x, resized], 1))


def test_patchify_is_exact_both_ways() -> None:
    x = torch.randn(2, 3, 8, 12)
    output = dl.Patchify(Recorder(12), 2)(x, torch.zeros(2), {})
    assert torch.equal(output.prediction, x)
    assert torch.equal(output.variance_value, x.sigmoid())


def test_patchify_puts_the_pixels_of_a_patch_into_channels() -> None:
    network = Recorder(4)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    dl.Patchify(network, 2)(x, torch.zeros(1), {})
    assert network.calls[0][0][0, :, 0, 0].tolist() == [0, 1, 4, 5]


X = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("model", "conditions", "message"),
    [
        (dl.InPainting(TinyNetwork(3), 1), {"mask": X}, "needs both 'mask' and 'masked_image'"),
        (
            dl.InPainting(TinyNetwork(3), 1),
            {"mask": X[:, :, :2], "masked_image": X},
            r"\['mask'\] has shape \[2, 1, 2, 4\]",
        ),
        (
            dl.Concatenation(TinyNetwork(3), {"map": 2}),
            {"map": X},
            r"\['map'\] has shape \[2, 1, 4, 4\]; for this x it must be \[2, 2, 4, 4\]",
        ),
        (dl.SuperResolution(TinyNetwork(2)), {}, r"needs conditional_inputs\['low_resolution'\]"),
        (dl.SuperResolution(TinyNetwork(2)), {"low_resolution": X[0, 0][None].expand(2, 4, 4)}, "rank of x"),
        (dl.Patchify(TinyNetwork(9, 9), 3), {}, r"divisible by patch_size \(3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named(model, conditions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(X, torch.zeros(2, dtype=torch.long), conditions)


def test_patch_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="patch_size"):
        dl.Patchify(TinyNetwork(), 0)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_sequences_images_and_volumes_have_maps_and_low_resolutions(rank: int) -> None:
    """Larger maps are averaged, masks are known where all is, and linear interpolation keeps what is linear."""
    network = Recorder(1)
    x, t = torch.randn(2, 1, *[4] * rank), torch.tensor([1, 2])
    large = torch.randn(2, 1, *[8] * rank)
    dl.Concatenation(network, {"map": 1})(x, t, {"map": large})
    means = large.reshape(2, 1, *[4, 2] * rank).mean([3 + 2 * i for i in range(rank)])
    torch.testing.assert_close(network.calls[-1][0][:, 1:], means)

    mask = (large > 1).float()
    dl.InPainting(network, channels=1)(x, t, {"mask": mask, "masked_image": large * (1 - mask)})
    largest = mask.reshape(2, 1, *[4, 2] * rank).amax([3 + 2 * i for i in range(rank)])
    assert torch.equal(network.calls[-1][0][:, 2:], largest)

    ramp = torch.linspace(0, 1, 4).expand(2, 1, *[4] * rank)
    dl.SuperResolution(network)(torch.randn(2, 1, *[8] * rank), t, {"low_resolution": ramp})
    inner = network.calls[-1][0][:, 1][..., 1:-1].diff()
    torch.testing.assert_close(inner, torch.full_like(inner, 1 / 6))
