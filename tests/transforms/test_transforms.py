"""Transforms: what they write, that they stack, and what they say of bad batches."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.transforms.random_inpainting_mask import (
    brush_strokes,
    outpainting,
    rectangles,
    whole_image,
)
from diffusion_labs.transforms.super_resolution_transform import gaussian_blur
from tests.catalogue import SCHEDULES, TRANSFORMS, batch


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_missing_field_is_named_with_the_transform_and_the_fields_present(name: str) -> None:
    transform = TRANSFORMS[name]()
    message = rf"{type(transform).__name__} needs '\w+'; the batch has \['label'\]"
    with pytest.raises(KeyError, match=message):
        transform({"label": torch.zeros(2)})


@pytest.mark.parametrize("name", TRANSFORMS)
def test_keeps_every_field_that_it_does_not_write(name: str) -> None:
    given = batch()
    result = TRANSFORMS[name]()(given)
    for key in given.keys() - {"t", "noise", "xt", "target", "pixels", "images"}:
        assert result[key] is given[key]


def test_steps_and_target_satisfy_the_process() -> None:
    schedule = SCHEDULES["cosine"]()
    pipeline = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeV(schedule))
    result = pipeline({"x": torch.randn(64, 1, 4, 4)})
    assert torch.equal(result["xt"], schedule.q_sample(result["x"], result["noise"], result["t"]))
    x0, eps = dl.VPredictor(schedule).denoise(result["target"], result["xt"], result["t"])
    torch.testing.assert_close(x0, result["x"], atol=2e-5, rtol=0)
    torch.testing.assert_close(eps, result["noise"], atol=2e-5, rtol=0)
    assert result["t"].unique().numel() > 32  # each sample its own time


def test_noise_and_times_are_functions_of_the_sample() -> None:
    """Whatever its batch and torch's own random state; and the noise of latents is another than that of the process."""
    schedule = SCHEDULES["cosine"]()
    zero = {"latent_mean": torch.zeros(6, 4, 4, 4), "latent_log_variance": torch.zeros(6, 4, 4, 4)}
    given = {**zero, "sample_key": dl.sample_keys(0, 0, torch.arange(6))}
    pipeline = nn.Sequential(dl.EncodeLatents(nn.Identity()), dl.RandomDiffusionSteps(schedule))
    whole = pipeline(given)
    part = pipeline({name: value[2:4] for name, value in given.items()})
    for name in ("x", "t", "noise", "xt"):
        assert torch.equal(part[name], whole[name][2:4])
    assert not torch.equal(pipeline(zero)["noise"], pipeline(zero)["noise"])
    assert abs(torch.corrcoef(torch.stack([whole["x"].flatten(), whole["noise"].flatten()]))[0, 1]) < 4 / 384**0.5


def test_crops_corruptions_and_masks_are_functions_of_the_sample() -> None:
    pipeline = nn.Sequential(
        dl.RandomCrop(8, multiple=2),
        dl.SuperResolutionTransform(4, blur_sigma=(0.5, 2.0), blur_probability=0.5, noise_sigma=(0.1, 0.3)),
        dl.BSRDegradation(),
        dl.RandomInpaintingMask(),
    )
    given = {"x": torch.rand(12, 1, 16, 20), "sample_key": dl.sample_keys(0, 0, torch.arange(12))}
    whole, part = pipeline(given), pipeline({name: value[5:8] for name, value in given.items()})
    for name in ("x", "low_resolution", "mask"):
        torch.testing.assert_close(part[name], whole[name][5:8], rtol=0, atol=1e-6)
    other = pipeline({**given, "sample_key": given["sample_key"].flip(0)})
    for name in ("x", "mask"):
        assert not torch.equal(other[name], whole[name])


def test_fields_can_have_other_names() -> None:
    schedule = SCHEDULES["cosine"]()
    pipeline = nn.Sequential(
        dl.RandomDiffusionSteps(schedule, data_field="z", time_field="s", noise_field="n", xt_field="zs"),
        dl.ComputeTarget(
            dl.NoisePredictor(schedule), data_field="z", time_field="s", noise_field="n", target_field="y"
        ),
    )
    result = pipeline({"z": torch.randn(4, 2)})
    assert set(result) == {"z", "s", "n", "zs", "y"}
    assert torch.equal(result["y"], result["n"])


def test_a_pipeline_compiles_as_one_graph() -> None:
    schedule = SCHEDULES["cosine"]()
    pipeline = nn.Sequential(
        dl.NormalizeImages(),
        dl.RandomInpaintingMask(),
        dl.SuperResolutionTransform(4, blur_sigma=(0.4, 0.6)),
        dl.RandomDiffusionSteps(schedule),
        dl.ComputeV(schedule),
    )
    given = {"x": torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8), "class": torch.arange(4)}
    compiled = torch.compile(pipeline, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    eager = pipeline(given)
    torch.manual_seed(1)
    for key, value in compiled(given).items():
        torch.testing.assert_close(value, eager[key], msg=key)


def test_normalisation_maps_bytes_to_minus_one_to_one() -> None:
    result = dl.NormalizeImages()({"x": torch.tensor([[0, 255]], dtype=torch.uint8)})["x"]
    assert result.tolist() == [[-1.0, 1.0]]
    with pytest.raises(TypeError, match="uint8"):
        dl.NormalizeImages()({"x": torch.zeros(1, 2)})


# Inpainting masks

X = torch.randn(400, 3, 16, 24)


@pytest.mark.parametrize("kind", [rectangles, brush_strokes, outpainting, whole_image])
@pytest.mark.parametrize("generator", [None, dl.KeyedGenerator(dl.sample_keys(0, 0, torch.arange(400)), 3)])
def test_masks_are_zero_or_one_and_differ_between_images(kind, generator) -> None:
    mask = kind(X, generator)
    assert mask.shape == (400, 1, 16, 24)
    assert ((mask == 0) | (mask == 1)).all()
    share = mask.mean((1, 2, 3))
    if kind is whole_image:
        assert (share == 1).all()
    else:
        assert (share > 0).all()
        assert (share < 1).all()
        assert share.unique().numel() > 50


def test_a_single_rectangle_is_one_and_outpainting_is_the_outside_of_one() -> None:
    for mask in (rectangles(X, count=1), 1 - outpainting(X)):
        rows, columns = mask.amax(3, keepdim=True), mask.amax(2, keepdim=True)
        assert torch.equal(mask, rows * columns)
        for profile in (rows.flatten(1), columns.flatten(1)):  # one run of ones: one rise at the most
            assert (F.pad(profile, (1, 1)).diff(dim=1) > 0).sum(1).max() == 1


def test_brush_strokes_are_as_wide_as_asked() -> None:
    """Thicker brushes cover what thinner ones of the same walk do."""
    masks = []
    for width in (0.1, 0.3):
        torch.manual_seed(3)
        masks.append(brush_strokes(X, narrowest=width, widest=width))
    assert (masks[1] >= masks[0]).all()
    assert masks[1].mean() > 1.5 * masks[0].mean()


def test_the_masked_image_is_the_known_part() -> None:
    result = dl.RandomInpaintingMask()({"x": X})
    assert torch.equal(result["masked_image"], X * (1 - result["mask"]))
    assert result["x"] is X


def test_kinds_are_drawn_with_their_weights() -> None:
    transform = dl.RandomInpaintingMask([whole_image, rectangles], [1.0, 3.0])
    images = {"x": X.expand(5, -1, -1, -1, -1).flatten(0, 1)}
    for given in (images, {**images, "sample_key": dl.sample_keys(0, 0, torch.arange(2000))}):
        whole = transform(given)["mask"].flatten(1).all(1)
        assert abs(whole.double().mean() - 0.25) < 5 * 0.45 / len(whole) ** 0.5


def test_impossible_masks_are_named() -> None:
    with pytest.raises(ValueError, match="weights"):
        dl.RandomInpaintingMask([whole_image], [1.0, 2.0])
    with pytest.raises(ValueError, match="masks need images"):
        dl.RandomInpaintingMask()({"x": torch.zeros(2, 3)})


# Super-resolution


def test_the_low_resolution_image_is_the_area_average() -> None:
    x = torch.rand(2, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    low = dl.SuperResolutionTransform(8)({"x": x})["low_resolution"]
    blocks = F.avg_pool2d(x, 4)
    assert (low - blocks).abs().mean() < 0.12  # a triangle filter leaks a little into its neighbours
    torch.testing.assert_close(low.mean((2, 3)), blocks.mean((2, 3)), atol=0.03, rtol=0)
    assert torch.equal(
        dl.SuperResolutionTransform(8)({"x": torch.ones(1, 1, 16, 16)})["low_resolution"],
        torch.ones(1, 1, 8, 8),
    )


def test_blur_is_a_normalised_gaussian() -> None:
    impulse = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    impulse[..., 4, 4] = 1
    blurred = gaussian_blur(impulse, torch.tensor([1.1], dtype=torch.float64), 7)
    offsets = torch.arange(9, dtype=torch.float64) - 4
    kernel = torch.exp(-0.5 * (offsets / 1.1) ** 2) * (offsets.abs() <= 3)
    expected = torch.outer(kernel, kernel) / kernel.sum() ** 2
    torch.testing.assert_close(blurred[0, 0], expected)


def test_each_image_is_blurred_with_its_own_sigma() -> None:
    x = torch.randn(3, 2, 8, 8)
    sigma = torch.tensor([0.0, 0.5, 2.0])
    blurred = gaussian_blur(x, sigma, 5)
    torch.testing.assert_close(blurred[0], x[0])
    for i in range(3):
        torch.testing.assert_close(blurred[i], gaussian_blur(x[i : i + 1], sigma[i : i + 1], 5)[0])


def test_blur_has_its_probability_and_noise_its_range() -> None:
    x = torch.randn(2000, 1, 8, 8)
    plain = dl.SuperResolutionTransform(4)({"x": x})["low_resolution"]

    def difference(**options) -> Tensor:
        low = dl.SuperResolutionTransform(4, **options)({"x": x})["low_resolution"]
        return (low - plain).flatten(1)

    blurred = (difference(blur_sigma=(0.6, 0.6), blur_probability=0.3) != 0).any(1)
    assert abs(blurred.double().mean() - 0.3) < 5 * 0.46 / 2000**0.5
    noise = difference(noise_sigma=(0.2, 0.2))
    assert abs(noise.std() - 0.2) < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size"),
        ({"size": 4, "blur_sigma": (0.6, 0.4)}, "blur_sigma"),
        ({"size": 4, "noise_sigma": (-0.1, 0.4)}, "noise_sigma"),
        ({"size": 4, "blur_probability": 1.1}, "blur_probability"),
        ({"size": 4, "blur_kernel_size": 4}, "odd"),
    ],
)
def test_impossible_low_resolution_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.SuperResolutionTransform(**options)


def test_images_smaller_than_asked_are_named() -> None:
    with pytest.raises(ValueError, match=r"smaller than size \(16\)"):
        dl.SuperResolutionTransform(16)({"x": torch.zeros(1, 1, 8, 8)})
