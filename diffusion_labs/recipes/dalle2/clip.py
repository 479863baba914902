"""The stage that trains CLIP, and that which writes its embeddings to disk."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.data import Batches, MapDataset
from diffusion_labs.data.batches import collect
from diffusion_labs.models.encoders import TransformersCLIP
from diffusion_labs.models.ldm import LatentScale
from diffusion_labs.recipes.dalle2.sizes import CLIPModel
from diffusion_labs.recipes.encoding import encoding_stage
from diffusion_labs.recipes.latent_diffusion import Images
from diffusion_labs.recipes.stages import Before, Stage, training_stage
from diffusion_labs.training import ContrastiveObjective, Experiment, WarmupCosine
from diffusion_labs.transforms import NormalizeImages


def clip_stage(
    dataset: Images,
    sizes: CLIPModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    group_field: str | None = None,
    weights: Sequence[float] | None = None,
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
        weights: see ``Batches``.
    """

    def build(before: Before) -> Experiment:
        torch.manual_seed(seed)
        clip = sizes.build_clip(frozen=False)
        objective = ContrastiveObjective(clip, transform=NormalizeImages(), group_field=group_field)
        return Experiment(
            objective=objective,
            model=clip,
            batches=Batches(dataset, batch_size, seed, weights=weights),
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
        trained=lambda before: trained_clip(sizes, before),
        encode=encode,
    )


def trained_clip(sizes: CLIPModel, before: Before) -> TransformersCLIP:
    """The CLIP of a run, with averaged weights and in eval mode."""
    clip = sizes.build_clip(frozen=True)
    clip.load_state_dict(before.weights("clip"))
    return clip


def measured_scale(stored: MapDataset) -> LatentScale:
    """The scale of each dimension of stored embeddings."""
    return LatentScale.of(embeddings_of(stored), per_channel=True)


def embeddings_of(stored: MapDataset) -> Iterator[Tensor]:
    """Stored embeddings ``[n, d]``, some after the others."""
    for part in torch.arange(len(stored)).split(1000):
        yield collect(stored, part.tolist())["image_embedding"]
