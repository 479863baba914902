"""The stage that trains the decoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from diffusion_labs.data import Batches, JoinedDataset
from diffusion_labs.data.batches import collect
from diffusion_labs.losses import DiffusionHybridLoss, SimpleLoss, VLBLoss
from diffusion_labs.models.dalle2 import EncodeCaptions
from diffusion_labs.recipes.dalle2.clip import measured_scale, trained_clip
from diffusion_labs.recipes.dalle2.previews import draw_decoded
from diffusion_labs.recipes.dalle2.sizes import DecoderModel
from diffusion_labs.recipes.latent_diffusion import Images
from diffusion_labs.recipes.stages import Before, Stage, training_stage
from diffusion_labs.training import Experiment, Objective, WarmupCosine
from diffusion_labs.transforms import (
    ComputeTarget,
    NormalizeImages,
    RandomDiffusionSteps,
    SuperResolutionTransform,
)

SHOWN = 32  # images of the data that a preview decodes again


def decoder_stage(
    dataset: Images,
    sizes: DecoderModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
    weights: Sequence[float] | None = None,
) -> Stage:
    """The decoder, from stored embeddings and captions to small images; in the folder ``decoder``.

    The loss is the hybrid one. The scale of the embeddings is measured as for the prior, and kept likewise.

    Args:
        dataset: of images with captions.
        sizes: of the model.
        steps: updates.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
        weights: see ``Batches``.
    """
    shrink = SuperResolutionTransform(sizes.decoder_size, image_field="x")

    def build(before: Before) -> Experiment:
        torch.manual_seed(seed)
        decoder = sizes.build_decoder()
        stored = before.data("embeddings")
        if not before.begun("decoder"):
            scaled: Any = decoder.model.model
            scaled.scale.load_state_dict(measured_scale(stored).state_dict())
        transform = nn.Sequential(
            NormalizeImages(),
            shrink,
            EncodeCaptions(trained_clip(sizes, before)),
            RandomDiffusionSteps(decoder.schedule),
            ComputeTarget(decoder.predictor),
        )
        loss = DiffusionHybridLoss(SimpleLoss(), VLBLoss(decoder.schedule))
        objective = Objective(transform, decoder, loss, conditions=["image_embedding", "text", "text_mask"])
        joined = JoinedDataset(dataset, stored)
        first = shrink(NormalizeImages()(collect(joined, range(min(SHOWN, len(joined))))))
        return Experiment(
            objective=objective,
            model=decoder,
            batches=Batches(joined, batch_size, seed, weights=weights),
            optimizer=torch.optim.AdamW(decoder.parameters(), learning_rate, betas=(0.9, 0.99), fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=ema_decay,
            preview=lambda model, path: draw_decoded(model, first["x"], first["image_embedding"], path),
        )

    return training_stage("decoder", build)
