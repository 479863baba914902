"""The stage that trains the diffusion prior."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from diffusion_labs.data import Batches
from diffusion_labs.data.batches import collect
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.models.dalle2 import EncodeEmbeddings
from diffusion_labs.recipes.dalle2.clip import measured_scale
from diffusion_labs.recipes.dalle2.previews import draw_nearest
from diffusion_labs.recipes.dalle2.sizes import PriorModel, clip_of
from diffusion_labs.recipes.latent_diffusion import Images
from diffusion_labs.recipes.stages import Before, Stage, training_stage
from diffusion_labs.training import Experiment, Objective, WarmupCosine
from diffusion_labs.transforms import ComputeTarget, RandomDiffusionSteps

GALLERY = 2000  # images among which a preview looks for the nearest


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
    weights: Sequence[float] | None = None,
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
        weights: see ``Batches``.
    """

    def build(before: Before) -> Experiment:
        torch.manual_seed(seed)
        model = sizes.build_prior()
        clip = clip_of(model)
        clip.load_state_dict(before.weights("clip"))
        stored = before.data("embeddings")
        if not before.begun("prior"):
            model.scale.load_state_dict(measured_scale(stored).state_dict())
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
            batches=Batches(stored, batch_size, seed, weights=weights),
            optimizer=torch.optim.AdamW(trained, learning_rate, betas=(0.9, 0.96), weight_decay=0.06, fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=ema_decay,
            preview=lambda model, path: draw_nearest(model, captions, dataset, gallery, path),
        )

    return training_stage("prior", build)
