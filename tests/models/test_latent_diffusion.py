"""Latent diffusion: the two modes, the scale of latents, and what is frozen."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import (
    latent_diffusion,
    texts,
    tiny_kl,
    tiny_vq,
)
from tests.models.test_encoders import Noting

LABELS = torch.tensor([0, 1, 2, 0])
CONDITIONS: dict[str, Any] = {"class": LABELS, "caption": texts(4)}


@pytest.fixture
def system() -> dl.LatentDiffusion:
    return latent_diffusion().eval()


# The scale of latents


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("make", [tiny_kl, tiny_vq])
def test_a_measured_scale_gives_latents_of_mean_0_and_standard_deviation_1(make, per_channel: bool) -> None:
    autoencoder = make().eval()
    batches = [3 * torch.rand(16, 1, 16, 16) - 1 for _ in range(4)]
    scale = dl.LatentScale.measured(autoencoder, batches, per_channel=per_channel)
    assert list(scale.scale.shape) == ([3] if per_channel else [])
    new = 3 * torch.rand(64, 1, 16, 16) - 1
    z = dl.EncodeLatents(autoencoder, scale)({"x": new})["x"]
    values = z.transpose(0, 1).flatten(1) if per_channel else z.reshape(1, -1)
    torch.testing.assert_close(values.std(1), torch.ones(len(values)), rtol=0, atol=0.05)
    torch.testing.assert_close(values.mean(1), torch.zeros(len(values)), rtol=0, atol=0.05)


def test_a_scale_measures_what_it_is_shown_and_leaves_the_mode_of_the_autoencoder() -> None:
    class Plain(nn.Module):
        factor, latent_channels = 1, 1

        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.weight = nn.Dropout(0.5), nn.Parameter(torch.ones(()))

        def posterior(self, x: Tensor) -> dl.DiagonalGaussian:
            return dl.DiagonalGaussian(self.dropout(x), torch.full_like(x, -30.0))

        def decode(self, z: Tensor) -> Tensor:
            return z

    autoencoder = Plain().train()
    scale = dl.LatentScale.measured(autoencoder, [torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)])
    assert autoencoder.training
    assert scale.shift.item() == pytest.approx(2.0, abs=1e-4)
    assert scale.scale.item() == pytest.approx(2**-0.5, abs=1e-4)
    with pytest.raises(ValueError, match="standard deviation"):
        dl.LatentScale.measured(Plain().eval(), [torch.ones(2, 1, 1, 1)])
    with pytest.raises(ValueError, match="at least one batch"):
        dl.LatentScale.measured(Plain(), [])


@pytest.mark.parametrize("scale", [dl.LatentScale(0.3, 0.18215), dl.LatentScale([0.1, -2.0], [3.0, 0.5])])
def test_denormalize_undoes_normalize(scale: dl.LatentScale) -> None:
    z = torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(scale.denormalize(scale.normalize(z)), z)
    shift, factor = (value.flatten()[-1] for value in (scale.shift, scale.scale))
    torch.testing.assert_close(scale.normalize(z)[:, 1], (z[:, 1] - shift) * factor)


@pytest.mark.parametrize("measured", [dl.LatentScale(0.1, 3.0), dl.LatentScale([0.1, 2.0], [3.0, 0.5])])
def test_a_stored_scale_is_restored_whatever_its_shape_here(measured: dl.LatentScale) -> None:
    for fresh in (dl.LatentScale(), dl.LatentScale([0.0], [1.0])):
        fresh.load_state_dict(measured.state_dict())
        assert torch.equal(fresh.scale, measured.scale)
        assert torch.equal(fresh.shift, measured.shift)


def test_a_scale_stays_float32_in_half_precision_and_real_on_the_meta_device() -> None:
    for scale in (dl.LatentScale(scale=0.18215).bfloat16(), dl.LatentScale(scale=0.18215).to("meta")):
        assert scale.scale.item() == torch.tensor(0.18215).item()


@pytest.mark.parametrize(
    "given", [(0.0, 0.0), (0.0, -1.0), (0.0, float("nan")), (float("inf"), 1.0), (0.0, [1.0, 0.0])]
)
def test_a_scale_that_cannot_be_undone_is_named(given) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        dl.LatentScale(*given)


# The latents to train on


@pytest.mark.parametrize("make", [tiny_kl, tiny_vq])
def test_stored_moments_give_the_latents_that_images_give(make) -> None:
    autoencoder, images = make().eval(), torch.randn(2, 1, 8, 8)
    transform = dl.EncodeLatents(autoencoder, dl.LatentScale(0.1, 3.0), image_field="images")
    posterior = autoencoder.posterior(images)
    torch.manual_seed(1)
    from_images = transform({"x": images, "class": LABELS[:2]})
    torch.manual_seed(1)
    stored = {"latent_mean": posterior.mean, "latent_log_variance": posterior.log_variance}
    from_moments = dl.EncodeLatents(nn.Identity(), transform.scale)({**stored, "class": LABELS[:2]})
    torch.testing.assert_close(from_moments["x"], from_images["x"])
    assert from_images["images"] is images
    assert not from_images["x"].requires_grad


def test_samples_of_a_posterior_differ_and_those_of_codes_do_not() -> None:
    images = torch.randn(2, 1, 8, 8)
    for autoencoder, spread in ((tiny_kl().eval(), True), (tiny_vq().eval(), False)):
        transform = dl.EncodeLatents(autoencoder)
        first, second = (transform({"x": images})["x"] for _ in range(2))
        assert (not torch.equal(first, second)) == spread
    assert torch.equal(first, autoencoder.encode(images))


# The two modes


def test_training_is_the_sampler_on_encoded_conditions() -> None:
    system = latent_diffusion().train()
    x, t = torch.randn(4, 3, 4, 4), torch.tensor([0, 10, 500, 999])
    torch.manual_seed(1)
    actual = system(x, t, CONDITIONS)
    torch.manual_seed(1)
    encoded = system.conditioner(CONDITIONS, x, system.sampler.model.condition_names)
    torch.testing.assert_close(actual.prediction, system.sampler(x, t, encoded).prediction)


def test_images_are_decoded_samples_of_the_scaled_latents(system: dl.LatentDiffusion) -> None:
    seeds = range(4)
    noise = system.sample_prior(4, (8, 16), dl.seeded(seeds))
    assert noise.shape == (4, 3, 4, 8)
    images = system(noise, conditional_inputs=CONDITIONS, generator=dl.seeded(seeds))
    encoded = system.conditioner(CONDITIONS, noise)
    z = system.sampler(noise, conditional_inputs=encoded, generator=dl.seeded(seeds))
    torch.testing.assert_close(images, system.autoencoder.decode(z / system.scale.scale + system.scale.shift))
    assert images.shape == (4, 1, 8, 16)


def test_the_image_of_a_seed_and_a_caption_does_not_depend_on_the_batch(system: dl.LatentDiffusion) -> None:
    noise = system.sample_prior(4, (8, 8), dl.seeded(range(4)))
    batch = system(noise, conditional_inputs=CONDITIONS)
    for i in range(4):
        alone = {"class": LABELS[i : i + 1], "caption": CONDITIONS["caption"][i : i + 1]}
        torch.testing.assert_close(
            system(noise[i : i + 1], conditional_inputs=alone)[0], batch[i], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("steps", [2, 5])
def test_conditions_are_encoded_once_for_a_whole_sampling(steps: int) -> None:
    system = latent_diffusion().eval()
    system.sampler.eval_steps = steps
    encoder = Noting(system.conditioner.encoders["caption"])
    system.conditioner.encoders["caption"] = encoder
    system(torch.randn(4, 3, 4, 4), conditional_inputs={**CONDITIONS, "caption": ["b", "a", "b", "a"]})
    assert [call for call in encoder.calls if isinstance(call, list)] == [["b", "a"]]
    assert len(encoder.calls) == 2  # and once for no text


def test_guidance_leads_away_from_the_empty_text_and_no_class(system: dl.LatentDiffusion) -> None:
    """What is absent here equals what is given there, at every scale."""
    noise = torch.randn(4, 3, 4, 4)
    explicit = {"negative_caption": [""] * 4, "negative_class": torch.full((4,), 3)}
    images = {}
    for scale in (1.0, 3.0):
        system.sampler.model.guidance_scale = scale
        images[scale] = system(noise, conditional_inputs=CONDITIONS)
        torch.testing.assert_close(system(noise, conditional_inputs=CONDITIONS | explicit), images[scale])
        absent = {"caption": [""] * 4, "class": torch.full((4,), 3)}
        torch.testing.assert_close(system(noise), system(noise, conditional_inputs=absent))
    assert (images[1.0] - images[3.0]).abs().max() > 1e-3
    other = system(noise, conditional_inputs=CONDITIONS | {"negative_caption": ["a dog"] * 4})
    assert (other - images[3.0]).abs().max() > 1e-3


def test_training_drops_to_what_sampling_leads_away_from() -> None:
    """With everything dropped, training is the network on the empty text and on no class; and it teaches them."""
    system = latent_diffusion().train()
    guidance = system.sampler.model
    guidance.groups = tuple((names, 1.0) for names, _ in guidance.groups)
    x, t = torch.randn(4, 3, 4, 4), torch.tensor([0, 10, 500, 999])
    dropped = system(x, t, CONDITIONS).prediction
    nothing = system.conditioner(None, x, {"text", "text_mask", "class_token"})
    torch.testing.assert_close(dropped, guidance.model(x, t, nothing).prediction)
    dropped.square().sum().backward()
    rows = system.conditioner.encoders["class"].table.weight.grad.abs().sum(1)
    assert rows[3] > 0
    assert not rows[:3].any()


# What is frozen


def test_the_autoencoder_is_frozen_and_everything_else_is_trained() -> None:
    system = latent_diffusion()
    transform = nn.Sequential(
        dl.EncodeLatents(system.autoencoder, system.scale),
        dl.RandomDiffusionSteps(system.sampler.schedule),
        dl.ComputeTarget(system.sampler.predictor),
    )
    objective = dl.Objective(transform, system, dl.SimpleLoss(), conditions=["class", "caption"]).train()
    assert not any(module.training for module in system.autoencoder.modules())
    assert all(module.training for module in (system, system.sampler, system.conditioner))
    objective({"x": torch.randn(4, 1, 8, 8), **CONDITIONS}).backward()
    for name, parameter in system.named_parameters():
        assert (parameter.grad is None) == name.startswith("autoencoder"), name
