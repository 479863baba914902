"""The stages of training latent diffusion on small images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffusion_labs.data import Batches, MapDataset
from diffusion_labs.data.batches import collect
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.models.autoencoder import AutoencoderKL, PatchDiscriminator
from diffusion_labs.models.ldm import EncodeLatents, LatentScale
from diffusion_labs.recipes.drawing import PREVIEW_STEPS, draw_classes, draw_pairs
from diffusion_labs.recipes.encoding import encoding_stage
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.latent_model import AutoencodedModel
from diffusion_labs.recipes.stages import Before, Stage, Stages, training_stage
from diffusion_labs.training import Experiment, KLObjective, Objective, WarmupCosine
from diffusion_labs.transforms import ComputeTarget, NormalizeImages, RandomDiffusionSteps

SCALE_IMAGES = 2048  # images on which the scale of the latents is measured


class Images(MapDataset, Protocol):
    """A data set of images of one shape, as all of the library's are."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""


def class_stages(
    dataset: Images,
    sizes: AutoencodedModel,
    *,
    autoencoder_steps: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    disc_start: int | None,
    ema_decay: float,
    seed: int,
) -> Stages:
    """All stages of a model for classes; the autoencoder's batches are half as large."""
    how: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed}
    halved = max(1, batch_size // 2)
    return Stages(
        [
            autoencoder_stage(dataset, sizes, steps=autoencoder_steps, batch_size=halved, disc_start=disc_start, **how),
            latents_stage(dataset, sizes),
            diffusion_stage(
                dataset,
                sizes,
                steps=steps,
                batch_size=batch_size,
                ema_decay=ema_decay,
                preview=lambda model, path: draw_classes(model, sizes, path, steps=PREVIEW_STEPS),
                **how,
            ),
        ],
        described(sizes),
        {"": "diffusion"},
    )


def autoencoder_stage(
    dataset: Images,
    sizes: AutoencodedModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    disc_start: int | None,
    seed: int,
    kl_weight: float = 1e-6,
) -> Stage:
    """The first stage: L1 and KL, and from update ``disc_start`` on a PatchGAN; in the folder ``autoencoder``.

    With a larger ``kl_weight`` the decoder learns to bear more noise in the latents, at the price of detail.
    """

    def build(before: Before) -> Experiment:
        torch.manual_seed(seed)
        autoencoder = sizes.build_autoencoder()
        game: dict[str, Any] = {}
        if disc_start is not None:
            discriminator = PatchDiscriminator(sizes.image_shape[0], channels=32, num_layers=2)
            game = {"discriminator": discriminator, "disc_start": disc_start}
        objective = KLObjective(autoencoder, transform=NormalizeImages(), kl_weight=kl_weight, **game)
        first = dataset_images(dataset, range(min(32, len(dataset))))
        return Experiment(
            objective=objective,
            model=autoencoder,
            batches=Batches(dataset, batch_size, seed),
            optimizer=torch.optim.Adam(objective.parameter_groups(learning_rate), betas=(0.5, 0.9), fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=0.995,
            preview=lambda model, path: draw_reconstructions(model, first, path),
        )

    return training_stage("autoencoder", build)


def latents_stage(dataset: Images, sizes: AutoencodedModel) -> Stage:
    """The posterior of every image, and its class or caption, on disk in the folder ``latents``."""

    def encode(autoencoder: AutoencoderKL, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        posterior = autoencoder.posterior(batch["x"].to(device))
        moments = {"latent_mean": posterior.mean, "latent_log_variance": posterior.log_variance}
        return {**moments, **{name: batch[name] for name in sizes.conditions}}

    return encoding_stage(
        "latents",
        dataset,
        sizes,
        encoder="autoencoder",
        trained=lambda before: trained_autoencoder(sizes, before),
        encode=encode,
    )


def diffusion_stage(
    dataset: Images,
    sizes: AutoencodedModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
    preview: Callable[[nn.Module, Path], Tensor],
    weights: Sequence[float] | None = None,
) -> Stage:
    """The second stage: the network on the stored latents; in the folder ``diffusion``.

    The scale of the latents is measured when the stage begins, and is part of its checkpoints from then on. ``weights``
    are those of ``Batches``.
    """

    def build(before: Before) -> Experiment:
        torch.manual_seed(seed)
        model = sizes.build()
        model.autoencoder.load_state_dict(before.weights("autoencoder"))
        if not before.begun("diffusion"):
            chosen = torch.randperm(len(dataset))[:SCALE_IMAGES].split(250)
            images = (dataset_images(dataset, some.tolist()) for some in chosen)
            model.scale.load_state_dict(LatentScale.measured(model.autoencoder, images).state_dict())
        sampler: Any = model.sampler
        transform = nn.Sequential(
            EncodeLatents(model.autoencoder, model.scale),
            RandomDiffusionSteps(sampler.schedule),
            ComputeTarget(sampler.predictor),
        )
        objective = Objective(transform, model, SimpleLoss(), conditions=sizes.conditions)
        trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        return Experiment(
            objective=objective,
            model=model,
            batches=Batches(before.data("latents"), batch_size, seed, weights=weights),
            optimizer=torch.optim.AdamW(trained, learning_rate, betas=(0.9, 0.99), fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=ema_decay,
            preview=preview,
        )

    return training_stage("diffusion", build)


def trained_autoencoder(sizes: AutoencodedModel, before: Before) -> AutoencoderKL:
    """The autoencoder of a run, with averaged weights and in eval mode."""
    autoencoder = sizes.build_autoencoder()
    autoencoder.load_state_dict(before.weights("autoencoder"))
    return autoencoder.eval()


def dataset_images(dataset: MapDataset, indices: Sequence[int]) -> Tensor:
    """Some images of a data set, in [-1, 1]."""
    images: Tensor = NormalizeImages()(collect(dataset, indices))["x"]
    return images


@torch.no_grad()
def draw_reconstructions(autoencoder: Any, images: Tensor, path: Path) -> Tensor:
    """Write images in every other row, and below each what the autoencoder makes of it; return the picture."""
    found = autoencoder.decode(autoencoder.posterior(images.to(next(autoencoder.parameters()).device)).mean).cpu()
    return draw_pairs(images, found.clamp(-1, 1), path)
