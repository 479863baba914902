"""Class-conditional diffusion on small images: the model, its training and its pictures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.adapters import CFGuidance, Patchify
from diffusion_labs.data import Batches
from diffusion_labs.losses import SimpleLoss
from diffusion_labs.models.adm_unet import adm_unet
from diffusion_labs.models.transformer import dit
from diffusion_labs.predictors import StaticClamp, VPredictor
from diffusion_labs.randomness import Generators
from diffusion_labs.recipes.drawing import PREVIEW_STEPS, draw_classes
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.model_sizes import NoisedData
from diffusion_labs.recipes.stages import Stages, single
from diffusion_labs.samplers import DDIMSampler, Sampler
from diffusion_labs.schedules import DiscreteGaussianSchedule, cosine_beta_schedule
from diffusion_labs.training import Experiment, Objective, WarmupCosine
from diffusion_labs.transforms import ComputeTarget, NormalizeImages, RandomDiffusionSteps


@dataclass(frozen=True)
class PixelModel(ABC):
    """A network on pixels, for classes: plain data, kept with a run. What is known of an image makes it a restorer.

    Attributes:
        image_shape: ``(channels, height, width)``.
        class_names: names of the classes; empty if there are none.
        class_dropout: share of the training images whose class is dropped, for guidance.
    """

    image_shape: Sequence[int]
    class_names: Sequence[str]
    class_dropout: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        multiple = self.size_multiple
        if any(side % multiple for side in self.image_shape[1:]):
            raise ValueError(
                f"images of {self.image_shape[1]} x {self.image_shape[2]} pixels do not fit this network: size must "
                f"be a multiple of {multiple}"
            )

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """The sides of images must be multiples of this."""

    @abstractmethod
    def build_network(self, in_channels: int, out_channels: int) -> nn.Module:
        """The network, for the classes of ``classes``."""

    @property
    def classes(self) -> dict[str, int]:
        """The number of classes, by the name of the condition."""
        return {name: len(self.class_names) for name in self.conditions}

    @property
    def conditions(self) -> list[str]:
        """The conditional inputs: the class, or none if the images have no classes."""
        return ["class"] if self.class_names else []

    @property
    def known(self) -> Mapping[str, int]:
        """What is known of the image to draw, by the names of the inputs: how many channels each has."""
        return {}

    def prepare(self) -> nn.Module:
        """The transform that makes what is known from images in [-1, 1]."""
        return nn.Identity()

    def adapt(self, model: nn.Module) -> nn.Module:
        """The adapter that gives what is known to the model."""
        return model

    def build(self) -> DDIMSampler:
        """The model with random weights, as the sampler that holds all its parts.

        v prediction on a cosine schedule; ``sampler.model`` is the ``CFGuidance`` adapter.
        """
        channels = self.image_shape[0]
        network = self.build_network(channels + sum(self.known.values()), channels)
        dropout: dict[str | tuple[str, ...], float] = dict.fromkeys(self.conditions, self.class_dropout)
        model = CFGuidance(self.adapt(network), dropout)
        schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
        return DDIMSampler(model, schedule, VPredictor(schedule, clamp=StaticClamp()), eval_steps=50)

    def sampler(self, model: Sampler) -> Sampler:
        """The model itself."""
        return model

    def sample(self, model: Sampler, count: int, conditions: Mapping[str, Any], generators: Generators) -> Tensor:
        """See ``ModelSizes``."""
        device = next(model.parameters()).device
        noise = model.schedule.sample_prior((count, *self.image_shape), generators, device=device)
        images: Tensor = model(noise, conditional_inputs=conditions, generator=generators)
        return images

    def noised(
        self, model: Sampler, images: Tensor, conditions: Mapping[str, Any], generators: Generators
    ) -> NoisedData:
        """The images."""
        return NoisedData(images, conditions, pixels=True)


@dataclass(frozen=True)
class ImageModel(PixelModel):
    """An ADM U-Net on patches of pixels.

    Attributes:
        patch_size: pixels folded into channels, along each side.
        model_channels: see ``adm_unet``.
        channel_mult: see ``adm_unet``.
        num_res_blocks: see ``adm_unet``.
        attention_levels: see ``adm_unet``.
        head_channels: see ``adm_unet``.
        dropout: see ``adm_unet``.
    """

    patch_size: int = 2
    model_channels: int = 64
    channel_mult: Sequence[float] = (1, 2)
    num_res_blocks: int = 2
    attention_levels: Sequence[int] = (1,)
    head_channels: int = 32
    dropout: float = 0.0

    @property
    def size_multiple(self) -> int:
        """Whole patches, and whole pixels at the lowest level."""
        return self.patch_size * 2 ** (len(self.channel_mult) - 1)

    def build_network(self, in_channels: int, out_channels: int) -> nn.Module:
        """See ``PixelModel``."""
        area = self.patch_size**2
        network = adm_unet(
            in_channels=in_channels * area,
            out_channels=out_channels * area,
            model_channels=self.model_channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            attention_levels=self.attention_levels,
            head_channels=self.head_channels,
            dropout=self.dropout,
            classes=self.classes,
        )
        return Patchify(network, self.patch_size)


@dataclass(frozen=True)
class ImageTransformer(PixelModel):
    """A diffusion Transformer on patches of pixels.

    Attributes:
        patch_size: the side of a patch.
        dim: see ``dit``.
        depth: see ``dit``.
        num_heads: see ``dit``.
    """

    patch_size: int = 4
    dim: int = 128
    depth: int = 6
    num_heads: int = 4

    @property
    def size_multiple(self) -> int:
        """Whole patches."""
        return self.patch_size

    def build_network(self, in_channels: int, out_channels: int) -> nn.Module:
        """See ``PixelModel``."""
        return dit(
            in_channels=in_channels,
            out_channels=out_channels,
            size=(self.image_shape[1], self.image_shape[2]),
            patch_size=self.patch_size,
            dim=self.dim,
            depth=self.depth,
            num_heads=self.num_heads,
            classes=self.classes,
        )


def image_sizes(dataset: Any, model_channels: int) -> ImageModel:
    """The sizes of a U-Net for images of files: three levels."""
    return ImageModel(
        dataset.image_shape,
        dataset.class_names,
        model_channels=model_channels,
        channel_mult=(1, 2, 4),
        attention_levels=(1, 2),
    )


def image_stages(
    dataset: Any,
    sizes: PixelModel,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    seed: int,
    preview: Callable[[nn.Module, Path], Tensor] | None = None,
    batches: Callable[[Any, int, int], Any] = Batches,
) -> Stages:
    """Train a ``PixelModel`` with AdamW on v prediction; the preview shows its classes by default.

    ``batches(dataset, batch_size, seed)`` are those of the experiment.
    """

    def classes(model: nn.Module, path: Path) -> Tensor:
        return draw_classes(model, sizes, path, steps=PREVIEW_STEPS)

    torch.manual_seed(seed)
    sampler = sizes.build()
    transform = nn.Sequential(
        NormalizeImages(),
        sizes.prepare(),
        RandomDiffusionSteps(sampler.schedule),
        ComputeTarget(sampler.predictor),
    )
    objective = Objective(transform, sampler, SimpleLoss(), conditions=[*sizes.conditions, *sizes.known])
    experiment = Experiment(
        objective=objective,
        model=sampler,
        batches=batches(dataset, batch_size, seed),
        optimizer=torch.optim.AdamW(objective.parameters(), learning_rate, betas=(0.9, 0.99), fused=True),
        steps=steps,
        learning_rate=WarmupCosine(steps, warmup=steps // 50),
        ema_decay=ema_decay,
        preview=preview or classes,
        description=described(sizes),
    )
    return single(experiment)
