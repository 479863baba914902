"""The tasks of latent diffusion, each trained for a moment, and measured in images."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import SCHEDULES, TinyNetwork

LATENT = (2, 4, 4)  # of an image of 1 x 8 x 8


class HalfResolution(nn.Module):
    """An exact autoencoder of images that are constant in 2 x 2 pixels: the latents are the pixels and their negative.

    Latents have the standard deviation 4, which ``LatentScale`` takes away.
    """

    factor, latent_channels = 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(4.0))

    def posterior(self, x: Tensor) -> dl.DiagonalGaussian:
        small = nn.functional.avg_pool2d(x, 2)
        return dl.DiagonalGaussian.of(self.gain * torch.cat([small, -small, -9 + 0 * small, -9 + 0 * small], 1))

    def decode(self, z: Tensor) -> Tensor:
        small = (z[:, :1] - z[:, 1:]) / (2 * self.gain)
        return nn.functional.interpolate(small, scale_factor=2)


class SmallNetwork(dl.ConditionalModule):
    """Three linear layers on x, with what adapters concatenate to it, the time, and the mean of the tokens."""

    def __init__(self, channels: int = 2, tokens: Mapping[str, int] | None = None) -> None:
        self_tokens = dict(tokens or {})
        super().__init__([key for name in self_tokens for key in (name, f"{name}_mask")])
        self.tokens = self_tokens
        self.condition_shapes = {name: (None, width) for name, width in self_tokens.items()}
        self.layers = nn.Sequential(
            nn.Linear(16 * channels + 8 + sum(self_tokens.values()), 128),
            nn.SiLU(),
            nn.Linear(128, 128),
            nn.SiLU(),
            nn.Linear(128, 32),
        )

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Any = None) -> dl.DiffusionOutput:
        conditions = self.check_conditions(conditional_inputs, x)
        phase = timestep.float()[:, None] / 1000 * torch.tensor([0.5, 1.0, 2.0, 4.0]) * torch.pi
        features = [x.flatten(1), phase.sin(), phase.cos()]
        for name in self.tokens:
            mask = conditions.get(f"{name}_mask", torch.ones(conditions[name].shape[:2]))[..., None]
            features.append((conditions[name] * mask).sum(1) / mask.sum(1))
        return dl.DiffusionOutput(self.layers(torch.cat(features, 1)).reshape(-1, *LATENT))


def patterns(count: int, seed: int = 0) -> Tensor:
    """Different images of -1 and 1, constant in 2 x 2 pixels."""
    small = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed)).sign()
    return nn.functional.interpolate(small, scale_factor=2)


def system_of(
    model: nn.Module, encoders: Mapping[str, nn.Module] | None = None, encoded: Sequence[str] = ()
) -> dl.LatentDiffusion:
    schedule = SCHEDULES["cosine"]()
    sampler = dl.DDIMSampler(model, schedule, dl.VPredictor(schedule), eval_steps=12, progress_bar=False)
    autoencoder = HalfResolution()
    scale = dl.LatentScale.measured(autoencoder, [patterns(64)])
    return dl.LatentDiffusion(autoencoder, sampler, dl.Conditioner(encoders or {}), scale, encoded=encoded)


def trained(system: dl.LatentDiffusion, draw: Any, conditions: Sequence[str] = (), steps: int = 400) -> float:
    """Train on the batches that ``draw()`` makes, and return the last losses' mean."""
    sampler = system.sampler
    steps_of = dl.RandomDiffusionSteps(sampler.schedule, uniform=dl.stratified_uniform)
    encode = dl.EncodeLatents(system.autoencoder, system.scale)
    transform = nn.Sequential(encode, steps_of, dl.ComputeTarget(sampler.predictor))
    objective = dl.Objective(transform, system, dl.SimpleLoss(), conditions=conditions).train()
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 3e-3, weight_decay=0)
    losses = []
    for _ in range(steps):
        loss = objective(draw())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    system.eval()
    return sum(losses[-50:]) / 50


def test_unconditional_samples_are_the_images_it_was_trained_on_each_of_them() -> None:
    data, system = patterns(3), system_of(SmallNetwork())
    trained(system, lambda: {"x": data[torch.randint(0, 3, (64,))]})
    images = system(system.sample_prior(60, (8, 8), dl.seeded(range(60))))
    distance = (images[:, None] - data).abs().mean((2, 3, 4))
    nearest = distance.min(1)
    assert (nearest.values < 0.3).float().mean() > 0.8
    assert nearest.indices.bincount(minlength=3).min() > 8


def test_a_class_and_a_text_choose_the_image_and_guidance_makes_it_surer() -> None:
    """Six images: of three classes in two ways, which a text says."""
    data, ways = patterns(6).reshape(3, 2, 1, 8, 8), ["as it is", "otherwise"]
    network = dl.CFGuidance(SmallNetwork(2, {"class_token": 16, "text": 16}), {"class_token": 0.1, "text": 0.1})
    encoders = {"class": dl.ClassEmbedding(3, 16), "caption": dl.ByteTextEncoder(16, depth=1, max_bytes=12)}
    system = system_of(network, encoders)

    def draw() -> dict[str, Any]:
        labels, way = torch.randint(0, 3, (64,)), torch.randint(0, 2, (64,))
        captions = [ways[i] for i in way.tolist()]
        return {"x": data[labels, way], "class": labels, "caption": captions}

    trained(system, draw, ["class", "caption"], steps=300)
    labels, way = torch.arange(60) % 3, torch.arange(60) // 3 % 2
    noise = system.sample_prior(60, (8, 8), dl.seeded(range(60)))
    wanted = data[labels, way]
    error = {}
    for scale in (0.0, 1.0, 2.0):
        network.guidance_scale = scale
        given = {"class": labels, "caption": [ways[i] for i in way.tolist()]}
        error[scale] = (system(noise, conditional_inputs=given) - wanted).abs().mean((1, 2, 3))
    assert (error[1.0] < 0.3).float().mean() > 0.9
    assert (error[0.0] < 0.3).float().mean() < 0.5  # without conditions any of the six
    assert error[2.0].mean() < error[0.0].mean() / 3

    network.guidance_scale = 2.0
    only_class = system(noise, conditional_inputs={"class": labels})  # either way
    of_class = (only_class[:, None] - data[labels]).abs().mean((2, 3, 4))
    assert (of_class.min(1).values < 0.4).float().mean() > 0.7
    assert of_class.argmin(1).bincount(minlength=2).min() > 6


def test_super_resolution_keeps_the_low_resolution_image() -> None:
    """The image is its low resolution, in pixels of 4 x 4, times a pattern that has to be found out."""
    pattern = patterns(1)
    system = system_of(dl.SuperResolution(SmallNetwork(3), mode="nearest"))

    def draw(count: int = 64) -> dict[str, Tensor]:
        low = torch.randn(count, 1, 2, 2).sign()
        return {"x": pattern * nn.functional.interpolate(low, scale_factor=4), "low_resolution": low}

    trained(system, draw, ["low_resolution"])
    test = draw(40)
    images = system(system.sample_prior(40, (8, 8)), conditional_inputs={"low_resolution": test["low_resolution"]})
    assert ((images - test["x"]).abs().mean((1, 2, 3)) < 0.3).float().mean() > 0.9


@pytest.mark.parametrize("join", [dl.image_then_mask, dl.mask_then_image])
def test_inpainting_finds_the_image_of_which_a_part_is_known(join: Any) -> None:
    """The masked image is given in pixels, and encoded once; the mask in pixels, too."""
    data = patterns(4)
    network = SmallNetwork(5)
    system = system_of(dl.InPainting(network, 2, join=join), encoded=["masked_image"])

    def draw(count: int = 64) -> dict[str, Any]:
        x = data[torch.randint(0, 4, (count,))]
        mask = torch.zeros(count, 1, 8, 8)
        mask[:, :, :, 4:] = 1
        return {"x": x, "mask": mask, "masked_image": x * (1 - mask)}

    trained(system, draw, ["mask", "masked_image"])
    test = draw(40)
    given = {name: test[name] for name in ("mask", "masked_image")}
    images = system(system.sample_prior(40, (8, 8)), conditional_inputs=given)
    assert ((images - test["x"]).abs().mean((1, 2, 3)) < 0.3).float().mean() > 0.9


def test_a_map_says_where_things_are() -> None:
    """Maps of three classes, four times the size of the latents; each class has its own brightness."""
    brightness = torch.tensor([-1.0, 0.2, 1.0])
    encoders = {"segmentation": dl.SpatialRescaler(1, 3, 2)}
    system = system_of(dl.Concatenation(SmallNetwork(4), {"map": 2}), encoders)

    def draw(count: int = 64) -> dict[str, Tensor]:
        classes = torch.randint(0, 3, (count, 4, 4)).repeat_interleave(2, 1).repeat_interleave(2, 2)
        segmentation = nn.functional.one_hot(classes, 3).movedim(3, 1).float()
        return {"x": brightness[classes][:, None], "segmentation": segmentation}

    trained(system, draw, ["segmentation"])
    test = draw(40)
    images = system(system.sample_prior(40, (8, 8)), conditional_inputs={"segmentation": test["segmentation"]})
    error = (images - test["x"]).abs().mean()
    assert error < 0.25
    assert (images - test["x"].flip(0)).abs().mean() > 3 * error


# Image to image


def gaussian_system(schedule: dl.Schedule) -> dl.LatentDiffusion:
    """The exact denoiser of three latents."""
    data = HalfResolution().posterior(patterns(3)).mean / 4
    predictor = dl.VPredictor(schedule)
    sampler = dl.DDIMSampler(
        dl.IdealDenoiser(predictor, data, 0.05), schedule, predictor, eval_steps=25, progress_bar=False
    )
    return dl.LatentDiffusion(HalfResolution(), sampler, scale=dl.LatentScale(scale=0.25)).eval()


@pytest.mark.parametrize("name", ["zero_terminal_snr", "rectified_flow"])
def test_strength_1_is_sampling_from_noise(name: str) -> None:
    schedule = SCHEDULES[name]()
    system = gaussian_system(schedule)
    images, generators = patterns(5, seed=3), dl.seeded(range(5))
    edited = system.image_to_image(images, 1.0, generator=generators)

    generators = dl.seeded(range(5))
    system.encode(images, generators)  # draws the posterior's sample first
    noise = system.sample_prior(5, (8, 8), generators)
    torch.testing.assert_close(edited, system(noise), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["scaled_linear", "cosine", "rectified_flow", "edm"])
def test_the_smaller_the_strength_the_nearer_the_image(name: str) -> None:
    """Images between two of the data: little noise leaves them nearly as they are, much of it makes them data."""
    system = gaussian_system(SCHEDULES[name]())
    data = patterns(3)
    images = (0.6 * data[0] + 0.4 * data[1])[None].repeat(16, 1, 1, 1)
    schedule = system.sampler.schedule
    least = schedule.time(torch.tensor(-2 * math.log(0.02), dtype=torch.float64)).item()  # sigma / alpha = 0.02
    least = (max(least, schedule.first) - schedule.clean) / (schedule.terminal - schedule.clean)
    strengths = [least, 0.1, 0.3, 0.6, 1.0]
    edits = [system.image_to_image(images, strength, generator=dl.seeded(range(16))) for strength in strengths]
    changes = [(edit - images).abs().mean().item() for edit in edits]
    assert all(later > earlier - 0.02 for earlier, later in pairwise(changes)), changes
    assert changes[0] < 0.25 * changes[-1], changes


def test_a_strength_outside_of_0_to_1_and_train_mode_are_named() -> None:
    system = gaussian_system(SCHEDULES["cosine"]())
    for strength in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"strength .* must be in \(0, 1\]"):
            system.image_to_image(patterns(1), strength)
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        system.train().image_to_image(patterns(1), 0.5)
    with pytest.raises(ValueError, match=r"size \(\(8, 7\)\) must be positive multiples of 2"):
        system.sample_prior(1, (8, 7))


# In practice


def test_training_on_stored_latents_compiles_as_one_graph() -> None:
    network = dl.CFGuidance(SmallNetwork(2, {"class_token": 16}), {"class_token": 0.3})
    system = system_of(network, {"class": dl.ClassEmbedding(3, 16)})
    transform = nn.Sequential(
        dl.EncodeLatents(system.autoencoder, system.scale),
        dl.RandomDiffusionSteps(system.sampler.schedule),
        dl.ComputeTarget(system.sampler.predictor),
    )
    objective = dl.Objective(transform, system, dl.SimpleLoss(), conditions=["class"]).train()
    posterior = system.autoencoder.posterior(patterns(4))
    batch = {"latent_mean": posterior.mean.detach(), "latent_log_variance": posterior.log_variance.detach()}
    batch["class"] = torch.tensor([0, 1, 2, 0])
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    losses = []
    for model in (objective, compiled):
        torch.manual_seed(0)
        losses.append(model(batch))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)


def test_large_images_are_decoded_in_tiles() -> None:
    system = system_of(SmallNetwork())
    latents = torch.randn(1, 2, 40, 24)
    whole, sizes = system.decode(latents), []
    decode = system.autoencoder.decode
    system.autoencoder.decode = lambda z: sizes.append(tuple(z.shape[2:])) or decode(z)
    system.decoding = partial(dl.tiled, tile=16, overlap=8)
    torch.testing.assert_close(system.decode(latents), whole)
    assert set(sizes) == {(16, 16)}


@torch.no_grad()
def test_large_images_are_encoded_in_tiles_also_as_conditions_and_to_edit_them() -> None:
    """Its pixels see no others, so tiles change nothing: neither the mean, nor the spread, nor what is drawn."""
    system = gaussian_system(SCHEDULES["cosine"]())
    system.encoded = frozenset({"masked_image"})
    images = torch.randn(2, 1, 40, 24, generator=torch.Generator().manual_seed(0))

    def results() -> list[Tensor]:
        posterior, conditions = system.posterior(images), system.condition({"masked_image": images}, images)
        return [*posterior, system.encode(images, dl.seeded([1, 2])), conditions["masked_image"]]

    whole, sizes = results(), []
    encode = system.autoencoder.posterior
    system.autoencoder.posterior = lambda x: sizes.append(tuple(x.shape[2:])) or encode(x)
    system.encoding = partial(dl.tiled, tile=16, overlap=8)
    for tiles, expected in zip(results(), whole, strict=True):
        torch.testing.assert_close(tiles, expected)
    assert set(sizes) == {(16, 16)}

    sizes.clear()
    system.sampler.model = TinyNetwork(2, 2)
    system.image_to_image(images, 0.3)
    assert set(sizes) == {(16, 16)}
