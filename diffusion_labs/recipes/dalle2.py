"""DALL-E 2 on small captioned images: CLIP, the embeddings on disk, and the diffusion prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.data import Batches, EncodedDataset
from diffusion_labs.data.batches import collect
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.models.dalle2 import DiffusionPrior, EncodeEmbeddings, dalle2_prior
from diffusion_labs.models.encoders import TransformersCLIP, byte_clip
from diffusion_labs.models.ldm import LatentScale
from diffusion_labs.models.transformer import prior_transformer
from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.drawing import PREVIEW_STEPS, save_grid
from diffusion_labs.recipes.encoding import encoding_stage
from diffusion_labs.recipes.latent_diffusion import Images, dataset_images
from diffusion_labs.recipes.stages import Stage, trained_weights, training_stage
from diffusion_labs.training import (
    ContrastiveObjective,
    Experiment,
    Objective,
    WarmupCosine,
    latest_checkpoint,
)
from diffusion_labs.transforms import ComputeTarget, NormalizeImages, RandomDiffusionSteps

GALLERY = 2000  # images among which a preview looks for the nearest


@dataclass(frozen=True)
class CLIPModel:
    """The sizes of a small CLIP on the bytes of captions: plain data, kept with a run.

    Attributes:
        image_shape: ``(channels, height, width)``.
        class_names: names of the classes; empty if there are none.
        patch_size: see ``byte_clip``, as for all that follows.
        embed_dim: width of the embeddings.
        image_dim: width of the Transformer of images.
        image_depth: its blocks.
        text_dim: width of the Transformer of texts.
        text_depth: its blocks.
        max_bytes: longer captions are cut.
    """

    image_shape: Sequence[int]
    class_names: Sequence[str] = ()
    patch_size: int = 4
    embed_dim: int = 64
    image_dim: int = 96
    image_depth: int = 3
    text_dim: int = 64
    text_depth: int = 2
    max_bytes: int = 62

    def __post_init__(self) -> None:
        _, height, width = self.image_shape
        if height != width or height % self.patch_size:
            raise ValueError(
                f"images of {height} x {width} pixels do not fit this model: they must be square, and size a multiple "
                f"of {self.patch_size}"
            )

    def build_clip(self, *, frozen: bool) -> TransformersCLIP:
        """CLIP with random weights."""
        return byte_clip(
            image_size=self.image_shape[1],
            in_channels=self.image_shape[0],
            patch_size=self.patch_size,
            embed_dim=self.embed_dim,
            image_dim=self.image_dim,
            image_depth=self.image_depth,
            text_dim=self.text_dim,
            text_depth=self.text_depth,
            max_bytes=self.max_bytes,
            frozen=frozen,
        )

    def build(self) -> nn.Module:
        """The model with random weights."""
        return self.build_clip(frozen=False)


@dataclass(frozen=True)
class PriorModel(CLIPModel):
    """The sizes of a diffusion prior and of its CLIP.

    Attributes:
        prior_dim: see ``prior_transformer``.
        prior_depth: see ``prior_transformer``.
        prior_heads: see ``prior_transformer``.
        text_dropout: share of the training samples whose caption is dropped, for guidance.
    """

    prior_dim: int = 128
    prior_depth: int = 4
    prior_heads: int = 4
    text_dropout: float = 0.1

    def build(self) -> DiffusionPrior:
        """The model with random weights, and a scale that changes nothing until it is loaded or measured."""
        network = prior_transformer(
            embed_dim=self.embed_dim,
            text_dim=self.text_dim,
            max_tokens=self.max_bytes + 2,
            dim=self.prior_dim,
            depth=self.prior_depth,
            num_heads=self.prior_heads,
        )
        clip = self.build_clip(frozen=True)
        return dalle2_prior(network, clip=clip, scale=LatentScale(), dropout=self.text_dropout)


def clip_stage(
    dataset: Images,
    sizes: CLIPModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    group_field: str | None = None,
) -> Stage:
    """CLIP, by contrast of the images and captions of a batch; in the folder ``clip``.

    Args:
        dataset: of images with captions.
        sizes: of the model.
        steps: updates.
        batch_size: pairs per update.
        learning_rate: the highest learning rate.
        seed: of weights and the order of the data.
        group_field: see ``ContrastiveObjective``.
    """

    def build(run_dir: Path) -> Experiment:
        torch.manual_seed(seed)
        clip = sizes.build_clip(frozen=False)
        objective = ContrastiveObjective(clip, transform=NormalizeImages(), group_field=group_field)
        return Experiment(
            objective=objective,
            model=clip,
            batches=Batches(dataset, batch_size, seed),
            optimizer=torch.optim.AdamW(objective.parameters(), learning_rate, betas=(0.9, 0.98), fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 20),
            ema_decay=0.99,
        )

    return training_stage("clip", build)


def embeddings_stage(dataset: Images, sizes: CLIPModel) -> Stage:
    """The embedding of every image, and its caption, on disk in the folder ``embeddings``."""

    def encode(clip: TransformersCLIP, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        return {"image_embedding": clip.encode_image(batch["x"].to(device)), "caption": batch["caption"]}

    return encoding_stage(
        "embeddings",
        dataset,
        sizes,
        encoder="clip",
        trained=lambda run_dir: trained_clip(sizes, run_dir),
        encode=encode,
    )


def prior_stage(
    dataset: Images,
    sizes: PriorModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
    captions: Sequence[str],
) -> Stage:
    """The diffusion prior on the stored embeddings; in the folder ``prior``.

    The scale of each dimension is measured when the stage begins, and is part of its checkpoints from then on.

    Args:
        dataset: of the images, for previews.
        sizes: of the model.
        steps: updates.
        batch_size: embeddings per update.
        learning_rate: the highest learning rate.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
        captions: shown in previews, one in a row.
    """

    def build(run_dir: Path) -> Experiment:
        torch.manual_seed(seed)
        model = sizes.build()
        clip = clip_of(model)
        clip.load_state_dict(trained_weights(run_dir / "clip"))
        stored = EncodedDataset(run_dir / "embeddings")
        if latest_checkpoint(run_dir / "prior" / "checkpoints") is None:
            batches = (collect(stored, some)["image_embedding"] for some in chunks(len(stored)))
            model.scale.load_state_dict(LatentScale.of(batches, per_channel=True).state_dict())
        sampler: Any = model.sampler
        transform = nn.Sequential(
            EncodeEmbeddings(clip, model.scale),
            RandomDiffusionSteps(sampler.schedule),
            ComputeTarget(sampler.predictor),
        )
        objective = Objective(transform, model, SimpleLoss(), conditions=["caption"])
        trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        gallery = collect(stored, range(min(GALLERY, len(stored))))["image_embedding"]
        return Experiment(
            objective=objective,
            model=model,
            batches=Batches(stored, batch_size, seed),
            optimizer=torch.optim.AdamW(trained, learning_rate, betas=(0.9, 0.96), weight_decay=0.06, fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=ema_decay,
            preview=lambda model, path: draw_nearest(model, captions, dataset, gallery, path),
        )

    return training_stage("prior", build)


def chunks(length: int, size: int = 1000) -> list[range]:
    """The indices of a data set in parts."""
    return [range(first, min(first + size, length)) for first in range(0, length, size)]


def clip_of(prior: DiffusionPrior) -> Any:
    """The CLIP that encodes the captions of a prior."""
    return prior.conditioner.encoders["caption"]


def trained_clip(sizes: CLIPModel, run_dir: Path) -> TransformersCLIP:
    """The CLIP of a run, with averaged weights and in eval mode."""
    clip = sizes.build_clip(frozen=True)
    clip.load_state_dict(trained_weights(run_dir / "clip"))
    return clip


def draw_nearest(
    model: Any, captions: Sequence[str], dataset: Images, gallery: Tensor, path: Path, *, columns: int = 8
) -> Tensor:
    """Write, in a row for each caption, the images whose embeddings are the nearest to samples; return the picture.

    Args:
        model: a ``DiffusionPrior``, in eval mode. It is left as it was.
        captions: one in a row.
        dataset: of the images.
        gallery: the embeddings of its first images, of length 1.
        path: of the picture.
        columns: samples for each caption.
    """
    sampler = model.sampler
    before = sampler.eval_steps, sampler.progress_bar
    sampler.eval_steps, sampler.progress_bar = PREVIEW_STEPS, False
    wanted = [caption for caption in captions for _ in range(columns)]
    try:
        z = model.sample({"caption": wanted}, generator=seeded(range(len(wanted)))).cpu()
    finally:
        sampler.eval_steps, sampler.progress_bar = before
    nearest = (z @ gallery.T).argmax(1)
    return save_grid(dataset_images(dataset, nearest.tolist()), path, columns=columns)
