"""DALL-E 2 of stages that are known in closed form: from texts, and from images and back."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import TinyNetwork
from tests.models import dalle2_parts as parts
from tests.models.dalle2_parts import DIM, SIDE, dalle2, fixed


def pictures(count: int = 8, seed: int = 7) -> Tensor:
    return 0.7 * torch.tanh(fixed(count, 1, SIDE, SIDE, seed=seed))


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / (a - b).square().mean().item())


# From texts


def test_the_stages_are_called_one_after_the_other() -> None:
    """The same by hand, with every random number in its order."""
    model, generator = dalle2(2), torch.Generator().manual_seed(3)
    images = model(["a cat", "a dog"], count=2, candidates=3, generator=generator)

    generator.manual_seed(3)
    embedding, states, mask = model.clip.encode_text(["a cat", "a cat", "a dog", "a dog"])
    z = model.prior.sample({"text_embedding": embedding}, 3, generator=generator)
    given = {"image_embedding": z, "text": states, "text_mask": mask}
    x = model.decoder.schedule.sample_prior((4, 1, 4, 4), generator)
    x = model.decoder(x, conditional_inputs=given, generator=generator)
    for stage, size in zip(model.upsamplers, (8, 16), strict=True):
        noise = stage.schedule.sample_prior((4, 1, size, size), generator)
        x = stage(noise, conditional_inputs={"low_resolution": x})
    assert images.shape == (4, 1, 16, 16)
    torch.testing.assert_close(images, x)


def test_each_text_is_encoded_once_and_an_image_depends_on_its_own_seed_alone() -> None:
    model = dalle2(1)
    images = model(["a cat", "a dog", "a cat"], count=2, generator=dl.seeded([1, 2, 3, 4, 5, 6]))
    assert model.clip.encoded == 2
    torch.testing.assert_close(images[3:4], model("a dog", generator=dl.seeded([4])))
    assert (images[0] - images[4]).abs().max() > 1e-2
    tokens = torch.tensor([list(b"a cat".ljust(12, b"\0"))])
    torch.testing.assert_close(images[:2], model(tokens, count=2, generator=dl.seeded([1, 2])))


def test_a_negative_text_takes_the_place_of_none() -> None:
    """``u + s (c - u)`` with u of the negative text, and of no embedding: at s = 0 it is all that is seen."""
    model = dalle2(guidance_scale=0.0, eval_steps=50)
    images = model("a cat", count=600, negative="two dogs", generator=torch.Generator().manual_seed(0))
    network = model.decoder.model.model
    _, states, _ = model.clip.encode_text(["two dogs"])
    expected = network.mean({"text": states})[0]
    error = (images.mean(0) - expected) / (images.std(0) / 600**0.5)
    assert error.abs().max() < 4.5


def test_upsampling_begins_at_the_size_of_the_image() -> None:
    model, x = dalle2(2), pictures(2)
    whole = model.upsample(x, generator=torch.Generator().manual_seed(1))
    generator, first = torch.Generator().manual_seed(1), model.upsamplers[0]
    middle = first(first.schedule.sample_prior((2, 1, 8, 8), generator), conditional_inputs={"low_resolution": x})
    torch.testing.assert_close(model.upsample(middle, generator=generator), whole)
    assert torch.equal(model.upsample(whole), whole)
    with pytest.raises(ValueError, match=r"square with a side of \(4, 8, 16\)"):
        model.upsample(torch.zeros(1, 1, 5, 5))


def test_sizes_are_one_for_each_stage() -> None:
    with pytest.raises(ValueError, match="one for the decoder and one for each of the 0 upsamplers"):
        dl.DALLE2(parts.TinyCLIP(), parts.TinyPrior(), parts.decoder(), sizes=(4, 8))


# From images and back


def test_an_image_comes_back_the_better_the_more_steps_there_are() -> None:
    model, x = dalle2(), pictures()
    errors = []
    for steps in (5, 20, 80):
        z, noise = model.encode(x, steps=steps)
        errors.append(psnr(model.decode(z, noise=noise, sampler=model.deterministic(steps)), x))
    assert errors[0] + 6 < errors[1]
    assert errors[1] + 6 < errors[2]
    assert errors[2] > 35


@pytest.mark.parametrize("wide", [False, True])
def test_an_oblong_image_is_the_square_in_its_centre(wide: bool) -> None:
    """Not squashed, and the embedding and the noise are of the same pixels."""
    model, square = dalle2(), fixed(2, 1, 8, 8, seed=4).clamp(-1, 1)
    oblong = F.pad(square, (2, 3, 0, 0) if wide else (0, 0, 2, 3), value=0.9)
    expected, actual = (model.encode(x, steps=5) for x in (square, oblong))
    assert all(torch.equal(*pair) for pair in zip(expected, actual, strict=True))


def test_the_noise_of_an_image_is_standard_normal_and_not_guided() -> None:
    """Images of the decoder's own distribution, of which the probability flow is an affine map to N(0, 1)."""
    model = dalle2(guidance_scale=5.0)
    z = F.normalize(fixed(1, DIM, seed=5), dim=1)
    network = model.decoder.model.model
    model.clip.encode_image = lambda x: z.expand(len(x), -1)
    x = network.mean({"image_embedding": z}) + network.std * fixed(2000, 1, SIDE, SIDE, seed=8)
    embedding, noise = model.encode(x, steps=100)
    assert torch.equal(embedding, z.expand(2000, -1))
    assert noise.mean(0).abs().max() < 4.5 / 2000**0.5
    assert (noise.std(0) - 1).abs().max() < 0.1
    unguided = dalle2(guidance_scale=1.0)
    unguided.clip.encode_image = model.clip.encode_image
    torch.testing.assert_close(unguided.encode(x[:3], steps=10).noise, model.encode(x[:3], steps=10).noise)


def test_variations_are_the_image_without_fresh_noise_and_of_its_embedding_with_it() -> None:
    model, x = dalle2(), pictures(1)
    same = model.variations(x, 2, eta=0.0, steps=80)
    assert psnr(same, x.expand_as(same)) > 35
    drawn = model.variations(x, 800, eta=1.0, steps=40, generator=torch.Generator().manual_seed(2))
    network = model.decoder.model.model
    expected = network.mean({"image_embedding": model.clip.encode_image(x)})[0]
    assert ((drawn.mean(0) - expected) / (network.std / 800**0.5)).abs().max() < 5
    assert (drawn.std(0) / network.std - 1).abs().max() < 0.15


def test_interpolation_has_both_images_at_its_ends() -> None:
    model, (first, second) = dalle2(), pictures(4).chunk(2)
    for theta, image in ((0.0, first), (torch.ones(2), second)):
        assert psnr(model.interpolate(first, second, theta, steps=80), image) > 35
    # In the middle, by hand; with a noise of its own only the embedding is between the two
    noise = fixed(2, 1, SIDE, SIDE)
    z = dl.slerp(model.clip.encode_image(first), model.clip.encode_image(second), 0.5)
    expected = model.decode(z, noise=noise, sampler=model.deterministic(20))
    torch.testing.assert_close(model.interpolate(first, second, 0.5, noise=noise, steps=20), expected)


def test_a_text_diff_turns_the_embedding_and_keeps_the_noise() -> None:
    model, x = dalle2(), pictures(2)
    assert psnr(model.text_diff(x, "a cat", "a dog", 0.0, steps=80), x) > 35
    z, noise = model.encode(x, steps=20)
    before, after = (model.clip.encode_text([text])[0] for text in ("a cat", "a dog"))
    direction = F.normalize(after - before, dim=1)
    omega = torch.acos((z * direction).sum(1, keepdim=True))
    turned = ((0.7 * omega).sin() * z + (0.3 * omega).sin() * direction) / omega.sin()
    expected = model.decode(turned, noise=noise, sampler=model.deterministic(20))
    torch.testing.assert_close(model.text_diff(x, "a cat", ["a dog"] * 2, 0.3, steps=20), expected)


def test_super_resolution_draws_images_that_are_the_small_one_when_made_small() -> None:
    """The posterior of a Gaussian given its 2 x 2 averages, in closed form."""
    model, small = dalle2(eval_steps=50), 0.5 * fixed(1, 1, 2, 2, seed=4)
    x = model.super_resolution(small.expand(400, -1, -1, -1), noise_std=0.1, generator=torch.Generator().manual_seed(0))
    network = model.decoder.model.model
    mean = network.mean({"image_embedding": model.clip.encode_image(small)}).double()[0]
    variance = network.std.double() ** 2
    averaged = F.avg_pool2d(variance, 2) / 4 + 0.1**2
    gain = (small[0].double() - F.avg_pool2d(mean, 2)) / averaged
    expected = mean + variance / 4 * F.interpolate(gain[None], scale_factor=2)[0]
    assert ((x.mean(0) - expected) / (x.std(0) / 400**0.5)).abs().max() < 5

    larger = dalle2(1)
    given = pictures(1)
    expected = larger.upsample(given, generator=dl.seeded([1]))
    assert torch.equal(larger.super_resolution(given, generator=dl.seeded([1])), expected)


def test_train_mode_and_gradients_are_none_of_it() -> None:
    model = dalle2(1).train()
    assert not any(module.training for module in model.modules())
    assert not model("a cat", generator=dl.seeded([1])).requires_grad


def test_a_system_that_was_saved_is_the_same(tmp_path: Path) -> None:
    model = dalle2(1)
    own = {part.__name__: part for part in (parts.TinyCLIP, parts.TinyPrior, parts.GaussianDecoder, TinyNetwork)}
    dl.save_pretrained(model, tmp_path / "dalle2", components=own)
    loaded = dl.from_pretrained(tmp_path / "dalle2", components=own)
    images = [each("a cat", count=2, generator=dl.seeded([1, 2])) for each in (model, loaded)]
    assert torch.equal(*images)


# Interpolation of vectors


def test_slerp_turns_evenly_at_the_norms_of_both() -> None:
    a, b = fixed(5, 3, 4).double(), 3 * fixed(5, 3, 4, seed=1).double()
    theta = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    c = dl.slerp(a, b, theta)
    flat = [value.flatten(1) for value in (a, b, c)]
    norms = [value.norm(dim=1) for value in flat]
    torch.testing.assert_close(norms[2], (1 - theta) * norms[0] + theta * norms[1])
    angle = lambda x, y: torch.acos(F.cosine_similarity(x, y).clamp(-1, 1))  # noqa: E731
    omega = angle(flat[0], flat[1])
    torch.testing.assert_close(angle(flat[0], flat[2]), theta * omega, atol=1e-7, rtol=0)
    torch.testing.assert_close(angle(flat[2], flat[1]), (1 - theta) * omega, atol=1e-7, rtol=0)


def test_slerp_of_parallel_vectors_is_a_line() -> None:
    a = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    b = torch.tensor([[2.0, 4.0], [1.0, 2.0], [1.0, 0.0], [-1.0, -2.0]])
    torch.testing.assert_close(dl.slerp(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_text_difference_keeps_the_norm() -> None:
    z, before, after = 4 * fixed(3, DIM), fixed(3, DIM, seed=1), fixed(3, DIM, seed=2)
    changed = dl.text_difference(z, before, after, 0.4)
    torch.testing.assert_close(changed.norm(dim=1), z.norm(dim=1))
    similar = F.cosine_similarity(changed, after - before) - F.cosine_similarity(z, after - before)
    assert similar.min() > 0.1


def test_text_difference_of_equal_texts_changes_nothing() -> None:
    z, text = fixed(2, DIM), fixed(2, DIM, seed=1)
    assert torch.equal(dl.text_difference(z, text, text, 0.4), z)


def test_texts_that_are_not_one_for_each_are_named() -> None:
    model, x = dalle2(), fixed(2, 1, SIDE, SIDE)
    with pytest.raises(ValueError, match="negative has 2 texts, but must be one, or 3"):
        model(["a", "b", "c"], negative=["d", "e"])
    with pytest.raises(ValueError, match="before has 3 texts, but must be one, or 2"):
        model.text_diff(x, ["a", "b", "c"], "d")
    with pytest.raises(ValueError, match="a batch of texts is needed"):
        model([])
