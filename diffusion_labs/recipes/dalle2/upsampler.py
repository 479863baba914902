"""The stage that trains the upsampler."""

import torch
from torch import nn

from diffusion_labs.data import Batches
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.recipes.dalle2.previews import draw_upsampled
from diffusion_labs.recipes.dalle2.sizes import UpsamplerModel
from diffusion_labs.recipes.latent_diffusion import Images, dataset_images
from diffusion_labs.recipes.stages import Before, Stage, training_stage
from diffusion_labs.training import Experiment, Objective, WarmupCosine
from diffusion_labs.transforms import (
    ComputeTarget,
    NormalizeImages,
    RandomCrop,
    RandomDiffusionSteps,
    SuperResolutionTransform,
)

SHOWN = 16  # images of the data that a preview shows


def upsampler_stage(
    dataset: Images,
    sizes: UpsamplerModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
) -> Stage:
    """The upsampler, from small images, half of them blurred, to large ones; on crops, in the folder ``upsampler``.

    Args:
        dataset: of images.
        sizes: of the model.
        steps: updates.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        ema_decay: of the averaged weights.
        seed: of weights, noise, crops and the order of the data.
    """

    def build(before: Before) -> Experiment:
        torch.manual_seed(seed)
        upsampler = sizes.build_upsampler()
        transform = nn.Sequential(
            NormalizeImages(),
            RandomCrop(sizes.crop_size, multiple=sizes.upsampling),
            SuperResolutionTransform(sizes.crop_size // sizes.upsampling, blur_sigma=(0.6, 0.6), blur_probability=0.5),
            RandomDiffusionSteps(upsampler.schedule),
            ComputeTarget(upsampler.predictor),
        )
        objective = Objective(transform, upsampler, SimpleLoss(), conditions=["low_resolution"])
        images = dataset_images(dataset, range(min(SHOWN, len(dataset))))
        small = SuperResolutionTransform(sizes.decoder_size)({"x": images})["low_resolution"]
        return Experiment(
            objective=objective,
            model=upsampler,
            batches=Batches(dataset, batch_size, seed),
            optimizer=torch.optim.AdamW(objective.parameters(), learning_rate, betas=(0.9, 0.99), fused=True),
            steps=steps,
            learning_rate=WarmupCosine(steps, warmup=steps // 50),
            ema_decay=ema_decay,
            preview=lambda model, path: draw_upsampled(model, small, sizes.image_shape[1], path),
        )

    return training_stage("upsampler", build)
