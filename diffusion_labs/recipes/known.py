"""A picture of which a part is known, for a model that draws whole ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.adapters import KnownRegion
from diffusion_labs.recipes.model_sizes import ModelSizes


@dataclass(frozen=True)
class Known:
    """A picture of which a part is drawn anew.

    Attributes:
        image: ``[c, h, w]`` in [-1, 1].
        mask: ``[h, w]``: 1 where it is drawn anew.
    """

    image: Tensor
    mask: Tensor

    @classmethod
    def of_pixels(cls, pixels: Tensor) -> "Known":
        """The one of uint8 ``[h, w, c + 1]``; the last channel, of opacity, is 0 where the picture is drawn anew."""
        channels = pixels.permute(2, 0, 1).float()
        return cls(channels[:-1] / 127.5 - 1, 1 - channels[-1] / 255)

    def pixels(self) -> Tensor:
        """What ``of_pixels`` takes."""
        levels = torch.cat([(self.image + 1) * 127.5, 255 * (1 - self.mask[None])])
        return levels.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0)


def read_known(file: str | Path) -> Known:
    """The one of a PNG, grey or in colours, that is transparent where the picture is to be drawn anew.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the picture has no transparency.
    """
    from PIL import Image

    picture = Image.open(file)
    if picture.mode not in ("LA", "RGBA"):
        raise ValueError(f"{file} is nowhere transparent; make it transparent where it is to be drawn anew")
    return Known.of_pixels(torch.from_numpy(numpy.array(picture)))


def know(model: Any, sizes: ModelSizes, known: Known, count: int) -> dict[str, Tensor]:
    """Give a model the adapter ``KnownRegion``, and return what ``draw(known=...)`` takes for some pictures.

    A model of latents knows the latents of what is kept; where a latent is partly drawn anew, all of it is.

    Args:
        model: what ``sizes.build`` returned, trained. Draws as before without what is known.
        sizes: of the model.
        known: what is kept, of the size of the model's images.
        count: of pictures.
    """
    sampler = sizes.sampler(model)
    sampler.model = KnownRegion(sampler.model, sampler.predictor).train(sampler.training)
    mask = known.mask[None, None].float()
    if hasattr(model, "autoencoder"):
        model.encoded = model.encoded | {"masked_image"}
        mask = F.max_pool2d(mask, model.autoencoder.factor)
    return {"masked_image": known.image.expand(count, -1, -1, -1), "mask": mask.expand(count, -1, -1, -1)}
