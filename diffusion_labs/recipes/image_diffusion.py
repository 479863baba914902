"""Class-conditional diffusion on small images: the model, its training and its pictures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffusion_labs.adapters import CFGuidance, Patchify
from diffusion_labs.data import Batches, MapDataset
from diffusion_labs.images import image_grid, save_image
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.models.adm_unet import adm_unet
from diffusion_labs.predictors import StaticClamp, VPredictor
from diffusion_labs.randomness import seeded
from diffusion_labs.samplers import DDIMSampler
from diffusion_labs.schedules import DiscreteGaussianSchedule, cosine_beta_schedule
from diffusion_labs.training import Experiment, Objective, WarmupCosine
from diffusion_labs.transforms import ComputeTarget, NormalizeImages, RandomDiffusionSteps

PREVIEW_STEPS = 20  # calls of the network for a picture during training


class LabelledImages(MapDataset, Protocol):
    """Images of one shape with classes, as all of the library's image data sets are."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes; none if the images have no classes."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""


@dataclass(frozen=True)
class ImageModel:
    """The sizes of an ADM U-Net on patches of pixels, for classes: plain data, kept with a run.

    Attributes:
        image_shape: ``(channels, height, width)``.
        class_names: names of the classes; empty if there are none.
        patch_size: pixels folded into channels, along each side.
        model_channels: see ``adm_unet``.
        channel_mult: see ``adm_unet``.
        num_res_blocks: see ``adm_unet``.
        attention_levels: see ``adm_unet``.
        head_channels: see ``adm_unet``.
        dropout: see ``adm_unet``.
        class_dropout: share of the training images whose class is dropped, for guidance.
    """

    image_shape: Sequence[int]
    class_names: Sequence[str]
    patch_size: int = 2
    model_channels: int = 64
    channel_mult: Sequence[float] = (1, 2)
    num_res_blocks: int = 2
    attention_levels: Sequence[int] = (1,)
    head_channels: int = 32
    dropout: float = 0.0
    class_dropout: float = 0.1

    def __post_init__(self) -> None:
        multiple = self.patch_size * 2 ** (len(self.channel_mult) - 1)
        if any(side % multiple for side in self.image_shape[1:]):
            raise ValueError(
                f"images of {self.image_shape[1]} x {self.image_shape[2]} pixels do not fit this network: size must "
                f"be a multiple of {multiple}"
            )

    @property
    def conditions(self) -> list[str]:
        """The conditional inputs: the class, or none if the images have no classes."""
        return ["class"] if self.class_names else []

    def build(self) -> DDIMSampler:
        """The model with random weights, as the sampler that holds all its parts.

        v prediction on a cosine schedule; ``sampler.model`` is the ``CFGuidance`` adapter.
        """
        network = adm_unet(
            in_channels=self.image_shape[0] * self.patch_size**2,
            model_channels=self.model_channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            attention_levels=self.attention_levels,
            head_channels=self.head_channels,
            dropout=self.dropout,
            classes={name: len(self.class_names) for name in self.conditions},
        )
        dropout: dict[str | tuple[str, ...], float] = dict.fromkeys(self.conditions, self.class_dropout)
        model = CFGuidance(Patchify(network, self.patch_size), dropout)
        schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
        return DDIMSampler(model, schedule, VPredictor(schedule, clamp=StaticClamp()), eval_steps=50)


def image_experiment(
    dataset: LabelledImages,
    sizes: ImageModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
) -> Experiment:
    """Train an ``ImageModel`` with AdamW on v prediction."""
    torch.manual_seed(seed)
    sampler = sizes.build()
    transform = nn.Sequential(
        NormalizeImages(), RandomDiffusionSteps(sampler.schedule), ComputeTarget(sampler.predictor)
    )
    objective = Objective(transform, sampler, SimpleLoss(), conditions=sizes.conditions)
    return Experiment(
        objective=objective,
        model=sampler,
        batches=Batches(dataset, batch_size, seed),
        optimizer=torch.optim.AdamW(objective.parameters(), learning_rate, betas=(0.9, 0.99), fused=True),
        steps=steps,
        learning_rate=WarmupCosine(steps, warmup=steps // 50),
        ema_decay=ema_decay,
        preview=lambda model, path: draw_classes(model, sizes, path, steps=PREVIEW_STEPS),
        description=asdict(sizes),
    )


def draw_classes(
    sampler: nn.Module,
    sizes: ImageModel,
    path: Path,
    *,
    per_class: int = 8,
    guidance_scale: float = 2.0,
    steps: int | None = None,
) -> Tensor:
    """Write a picture with one row per class (ten rows at the most), and return it, uint8 ``[h, w, 3]``."""
    labels = torch.arange(max(1, min(len(sizes.class_names), 10))).repeat_interleave(per_class)
    images = draw(sampler, sizes, labels, seed=0, guidance_scale=guidance_scale, steps=steps)
    picture = image_grid(images, columns=per_class)
    save_image(path, picture, scale=max(1, 64 // sizes.image_shape[1]))
    return picture


def draw(
    sampler: Any,
    sizes: ImageModel,
    labels: Tensor,
    *,
    seed: int,
    guidance_scale: float = 1.0,
    steps: int | None = None,
    batch_size: int = 250,
    progress_bar: bool = False,
) -> Tensor:
    """Sample an image for each label: image i is that of seed ``seed + i``, whatever the batch size.

    Args:
        sampler: what ``ImageModel.build`` returned, trained, in eval mode. It is left as it was.
        sizes: of the model.
        labels: classes, ``[n]``, int64; only their number counts if there are no classes.
        seed: of the first image.
        guidance_scale: see ``CFGuidance``.
        steps: calls of the network; the sampler's own number if ``None``.
        batch_size: images sampled at once.
        progress_bar: show the progress.

    Returns:
        ``[n, c, h, w]`` in [-1, 1].
    """
    before = sampler.eval_steps, sampler.progress_bar, sampler.model.guidance_scale
    sampler.eval_steps, sampler.progress_bar = steps or sampler.eval_steps, progress_bar
    sampler.model.guidance_scale = guidance_scale
    device = next(sampler.parameters()).device
    images = []
    try:
        for first, some in zip(range(0, len(labels), batch_size), labels.split(batch_size), strict=True):
            generators = seeded(range(seed + first, seed + first + len(some)))
            shape = (len(some), *sizes.image_shape)
            noise = sampler.schedule.sample_prior(shape, generators, device=device)
            conditions = {name: some.to(device) for name in sizes.conditions}
            images.append(sampler(noise, conditional_inputs=conditions, generator=generators).cpu())
    finally:
        sampler.eval_steps, sampler.progress_bar, sampler.model.guidance_scale = before
    return torch.cat(images)
