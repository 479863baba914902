"""Latent diffusion on small images: the model, and the stages of its training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.data import Batches, EncodedDataset, MapDataset, encode_dataset
from diffusion_labs.data.batches import collect
from diffusion_labs.files import tensors_sha256
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.models.autoencoder import AutoencoderKL, PatchDiscriminator, autoencoder_kl
from diffusion_labs.models.encoders import ByteTextEncoder, ClassEmbedding, Conditioner
from diffusion_labs.models.ldm import EncodeLatents, LatentDiffusion, LatentScale, ldm_unet
from diffusion_labs.predictors import VPredictor
from diffusion_labs.randomness import Generators
from diffusion_labs.recipes.drawing import save_grid
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.stages import Stage, trained_weights, training_stage
from diffusion_labs.samplers import DDIMSampler, Sampler
from diffusion_labs.schedules import DiscreteGaussianSchedule, cosine_beta_schedule
from diffusion_labs.training import (
    Experiment,
    KLObjective,
    Objective,
    TrainOptions,
    WarmupCosine,
    find_device,
    latest_checkpoint,
)
from diffusion_labs.training.log import progress_bar
from diffusion_labs.transforms import ComputeTarget, NormalizeImages, RandomDiffusionSteps

SCALE_IMAGES = 2048  # images on which the scale of the latents is measured


class Images(MapDataset, Protocol):
    """A data set of images of one shape, as all of the library's are."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""


@dataclass(frozen=True)
class LatentModel:
    """The sizes of a KL autoencoder and a U-Net on its latents, for classes or captions: plain data, kept with a run.

    Attributes:
        image_shape: ``(channels, height, width)``.
        class_names: names of the classes; empty if there are none.
        captions: whether captions say what to draw, and not classes.
        autoencoder_channels: see ``autoencoder_kl``; n widths make latents of ``2^(n - 1)`` pixels a side.
        latent_channels: see ``autoencoder_kl``.
        model_channels: see ``ldm_unet``.
        channel_mult: see ``ldm_unet``.
        num_res_blocks: see ``ldm_unet``.
        attention_levels: see ``ldm_unet``.
        head_channels: see ``ldm_unet``.
        condition_width: width of the tokens that the network attends to.
        text_depth: blocks of the text encoder.
        max_bytes: longer captions are cut.
        condition_dropout: share of the training images whose class or caption is dropped, for guidance.
    """

    image_shape: Sequence[int]
    class_names: Sequence[str] = ()
    captions: bool = False
    autoencoder_channels: Sequence[int] = (16, 32, 32)
    latent_channels: int = 4
    model_channels: int = 64
    channel_mult: Sequence[float] = (1, 2)
    num_res_blocks: int = 1
    attention_levels: Sequence[int] = (0, 1)
    head_channels: int = 32
    condition_width: int = 64
    text_depth: int = 2
    max_bytes: int = 64
    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        multiple = 2 ** (len(self.autoencoder_channels) + len(self.channel_mult) - 2)
        if any(side % multiple for side in self.image_shape[1:]):
            raise ValueError(
                f"images of {self.image_shape[1]} x {self.image_shape[2]} pixels do not fit this model: size must be a "
                f"multiple of {multiple}"
            )

    @property
    def conditions(self) -> list[str]:
        """What says what to draw: the caption, or the class, or nothing."""
        return ["caption"] if self.captions else ["class"] if self.class_names else []

    @property
    def known(self) -> Mapping[str, int]:
        """Nothing is known of the image to draw."""
        return {}

    def build_autoencoder(self) -> AutoencoderKL:
        """The first stage with random weights."""
        return autoencoder_kl(
            in_channels=self.image_shape[0],
            channels=self.autoencoder_channels,
            latent_channels=self.latent_channels,
            num_res_blocks=1,
            num_groups=8,
        )

    def build(self) -> LatentDiffusion:
        """The model with random weights: v prediction on a cosine schedule, DDIM."""
        encoders: dict[str, nn.Module] = {}
        tokens: dict[str, int] = {}
        if self.captions:
            encoders["caption"] = ByteTextEncoder(self.condition_width, depth=self.text_depth, max_bytes=self.max_bytes)
            tokens["text"] = self.condition_width
        elif self.class_names:
            encoders["class"] = ClassEmbedding(len(self.class_names), self.condition_width)
            tokens["class_token"] = self.condition_width
        network = ldm_unet(
            in_channels=self.latent_channels,
            model_channels=self.model_channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            attention_levels=self.attention_levels,
            head_channels=self.head_channels,
            tokens=tokens,
        )
        dropout: dict[str | tuple[str, ...], float] = dict.fromkeys(tokens, self.condition_dropout)
        schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
        sampler = DDIMSampler(CFGuidance(network, dropout), schedule, VPredictor(schedule), eval_steps=50)
        return LatentDiffusion(self.build_autoencoder(), sampler, Conditioner(encoders))

    def sampler(self, model: LatentDiffusion) -> Sampler:
        """The sampler of latents."""
        return model.sampler

    def prior(self, model: LatentDiffusion, count: int, generators: Generators) -> Tensor:
        """See ``ModelSizes``."""
        return model.sample_prior(count, self.image_shape[1:], generators)


def autoencoder_stage(
    dataset: Images,
    sizes: LatentModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    disc_start: int | None,
    seed: int,
) -> Stage:
    """The first stage: L1 and KL, and from update ``disc_start`` on a PatchGAN; in the folder ``autoencoder``."""

    def build(run_dir: Path) -> Experiment:
        torch.manual_seed(seed)
        autoencoder = sizes.build_autoencoder()
        game: dict[str, Any] = {}
        if disc_start is not None:
            discriminator = PatchDiscriminator(sizes.image_shape[0], channels=32, num_layers=2)
            game = {"discriminator": discriminator, "disc_start": disc_start}
        objective = KLObjective(autoencoder, transform=NormalizeImages(), **game)
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


def latents_stage(dataset: Images, sizes: LatentModel, *, batch_size: int = 250) -> Stage:
    """The posterior of every image, and its class or caption, on disk in the folder ``latents``."""

    def carry_out(run_dir: Path, options: TrainOptions) -> None:
        autoencoder, device = trained_autoencoder(sizes, run_dir), find_device(options.device)
        autoencoder.to(device)
        normalize = NormalizeImages()

        @torch.no_grad()
        def encode(batch: dict[str, Any]) -> dict[str, Any]:
            posterior = autoencoder.posterior(normalize(batch)["x"].to(device))
            moments = {"latent_mean": posterior.mean, "latent_log_variance": posterior.log_variance}
            return {**moments, **{name: batch[name] for name in sizes.conditions}}

        description = {"model": described(sizes), "autoencoder": tensors_sha256(autoencoder.state_dict())}
        with progress_bar("encode", "image", len(dataset)) as bar:
            encode_dataset(
                dataset,
                encode,
                run_dir / "latents",
                description=description,
                batch_size=batch_size,
                progress=lambda done: bar.update(done - bar.n),
            )

    return Stage("latents", carry_out)


def diffusion_stage(
    dataset: Images,
    sizes: LatentModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
    preview: Callable[[nn.Module, Path], Tensor],
) -> Stage:
    """The second stage: the network on the stored latents; in the folder ``diffusion``.

    The scale of the latents is measured when the stage begins, and is part of its checkpoints from then on.
    """

    def build(run_dir: Path) -> Experiment:
        torch.manual_seed(seed)
        model = sizes.build()
        model.autoencoder.load_state_dict(trained_weights(run_dir / "autoencoder"))
        if latest_checkpoint(run_dir / "diffusion" / "checkpoints") is None:
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
            batches=Batches(EncodedDataset(run_dir / "latents"), batch_size, seed),
            optimizer=torch.optim.AdamW(trained, learning_rate, betas=(0.9, 0.99), fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=ema_decay,
            preview=preview,
        )

    return training_stage("diffusion", build)


def trained_autoencoder(sizes: LatentModel, run_dir: Path) -> AutoencoderKL:
    """The autoencoder of a run, with averaged weights and in eval mode."""
    autoencoder = sizes.build_autoencoder()
    autoencoder.load_state_dict(trained_weights(run_dir / "autoencoder"))
    return autoencoder.eval()


def dataset_images(dataset: MapDataset, indices: Sequence[int]) -> Tensor:
    """Some images of a data set, in [-1, 1]."""
    images: Tensor = NormalizeImages()(collect(dataset, indices))["x"]
    return images


@torch.no_grad()
def draw_reconstructions(autoencoder: Any, images: Tensor, path: Path) -> Tensor:
    """Write images in every other row, and below each what the autoencoder makes of it; return the picture."""
    found = autoencoder.decode(autoencoder.posterior(images.to(next(autoencoder.parameters()).device)).mean).cpu()
    pairs = zip(images.split(8), found.clamp(-1, 1).split(8), strict=True)
    return save_grid(torch.cat([row for pair in pairs for row in pair]), path, columns=8)
