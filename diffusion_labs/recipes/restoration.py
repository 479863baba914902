"""Diffusion that restores images: the known part is given to the network beside the noisy image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.adapters import InPainting, SuperResolution
from diffusion_labs.data import IDXImages, MapDataset
from diffusion_labs.data.batches import collect
from diffusion_labs.recipes.drawing import PREVIEW_STEPS, draw, save_grid
from diffusion_labs.recipes.image_diffusion import ImageModel, image_stages
from diffusion_labs.recipes.mnist import mnist_folder
from diffusion_labs.recipes.stages import Stages
from diffusion_labs.transforms import NormalizeImages, RandomInpaintingMask, SuperResolutionTransform


@dataclass(frozen=True)
class SuperResolutionModel(ImageModel):
    """An ``ImageModel`` that is told the image at a low resolution.

    Attributes:
        low_size: height and width of the low resolution.
    """

    low_size: int = 8

    @property
    def known(self) -> Mapping[str, int]:
        """The image at a low resolution."""
        return {"low_resolution": self.image_shape[0]}

    def prepare(self) -> nn.Module:
        """Antialiased resizing, and noise on some images, so that the model forgives the faults of its input."""
        return SuperResolutionTransform(self.low_size, noise_sigma=(0.0, 0.1))

    def adapt(self, model: nn.Module) -> nn.Module:
        """See ``ImageModel``."""
        return SuperResolution(model)


@dataclass(frozen=True)
class InpaintingModel(ImageModel):
    """An ``ImageModel`` that is told a part of the image, and which part that is."""

    @property
    def known(self) -> Mapping[str, int]:
        """The image without the hidden part, and the mask."""
        return {"masked_image": self.image_shape[0], "mask": 1}

    def prepare(self) -> nn.Module:
        """Masks of all kinds."""
        return RandomInpaintingMask()

    def adapt(self, model: nn.Module) -> nn.Module:
        """See ``ImageModel``."""
        return InPainting(model, self.image_shape[0])


def mnist_restoration(
    make: Callable[..., ImageModel], data_dir: Path | None, *, size: int, model_channels: int, seed: int, **how: Any
) -> Stages:
    """Train a model to restore images in MNIST's format, and show it on test images.

    Args:
        make: from image shape, class names and sizes to the model's sizes.
        data_dir: see the recipes, as for all that follows.
        size: height and width of the images.
        model_channels: width of the network.
        seed: of everything.
        how: the other arguments of ``image_stages``.
    """
    folder = mnist_folder(data_dir)
    dataset = IDXImages(folder, "train", size=size)
    sizes = make(
        dataset.image_shape,
        (),
        model_channels=model_channels,
        channel_mult=(1, 2, 4),
        num_res_blocks=1,
        attention_levels=(1, 2),
    )
    preview = draw_restored(sizes, IDXImages(folder, "test", size=size), seed)
    return image_stages(dataset, sizes, seed=seed, preview=preview, **how)


def draw_restored(sizes: ImageModel, dataset: MapDataset, seed: int) -> Callable[[nn.Module, Path], Tensor]:
    """A preview of eight images in three rows: what is known, what the model makes of it, and the real images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = collect(dataset, range(min(8, len(dataset))))["x"]
        data = nn.Sequential(NormalizeImages(), sizes.prepare())({"x": images})
    known = {name: data[name] for name in sizes.known}
    shown = F.interpolate(next(iter(known.values())), size=sizes.image_shape[1:])

    def preview(model: nn.Module, path: Path) -> Tensor:
        count = torch.zeros(len(images), dtype=torch.long)
        restored = draw(model, sizes, count, seed=seed, known=known, steps=PREVIEW_STEPS)
        return save_grid(torch.cat([shown, restored, data["x"]]), path, columns=len(images))

    return preview
