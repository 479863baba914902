"""Training data for inpainting."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.randomness import KeyedGenerator, keyed_uniform
from diffusion_labs.transforms.transform import Batch, Transform

Mask = Callable[[Tensor, KeyedGenerator | None], Tensor]
NUMBERS = 8  # of streams of random numbers for a kind of mask


class RandomInpaintingMask(Transform):
    """Draws a mask for each image, and writes it and the image without what it covers.

    Each image gets one kind of mask at random. A kind is a function from images ``[b, c, h, w]`` and their random
    numbers, see ``rand``, to masks ``[b, 1, h, w]`` of 0 and 1 (1 = to be painted).

    Args:
        kinds: kinds of mask; ``rectangles``, ``brush_strokes``, ``outpainting`` and ``whole_image`` if ``None``.
        weights: how often each kind is drawn, in proportion; equally if ``None``.
        data_field: image to read.
        mask_field: mask to write, ``[b, 1, h, w]``, in the dtype of the image.
        image_field: masked image to write: ``x * (1 - mask)``.
    """

    def __init__(
        self,
        kinds: Sequence[Mask] | None = None,
        weights: Sequence[float] | None = None,
        *,
        data_field: str = "x",
        mask_field: str = "mask",
        image_field: str = "masked_image",
    ) -> None:
        super().__init__()
        kinds = (rectangles, brush_strokes, outpainting, whole_image) if kinds is None else tuple(kinds)
        weights = (1.0,) * len(kinds) if weights is None else tuple(weights)
        if not kinds or len(weights) != len(kinds) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"weights {weights} must be one number >= 0 for each of the {len(kinds)} kinds, not all 0")
        self.kinds = kinds
        self.weights = weights
        self.data_field = data_field
        self.mask_field = mask_field
        self.image_field = image_field

    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class.

        Raises:
            ValueError: if the data is not a batch of images.
        """
        x = self.field(batch, self.data_field)
        if x.ndim != 4:
            raise ValueError(f"'{self.data_field}' has shape {list(x.shape)}; masks need images [b, c, h, w]")
        masks = torch.stack(  # [kind, b, 1, h, w]
            [kind(x, self.generator(batch, NUMBERS * i)) for i, kind in enumerate(self.kinds, 1)]
        )
        shares = torch.tensor(self.weights, device=x.device).cumsum(0) / sum(self.weights)
        kind = torch.searchsorted(shares, rand(x, (), self.generator(batch)), right=True).clamp(max=len(masks) - 1)
        mask = masks[kind, torch.arange(x.shape[0], device=x.device)].to(x.dtype)
        return {**batch, self.mask_field: mask, self.image_field: x * (1 - mask)}


def rand(x: Tensor, shape: Sequence[int], generator: KeyedGenerator | None, number: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) for images: of the key of each, others by number, or torch's without a generator.

    Args:
        x: images, ``[b, ...]``.
        shape: of the numbers of an image.
        generator: see ``Transform.generator``.
        number: from 0 to 7.

    Returns:
        Float32 ``[b, *shape]``.
    """
    shape = (len(x), *shape)
    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=x.device)
    return keyed_uniform(shape, generator._replace(stream=generator.stream + number)).to(x.device, torch.float32)


def rectangles(
    x: Tensor,
    generator: KeyedGenerator | None = None,
    *,
    count: int = 3,
    smallest: float = 0.15,
    largest: float = 0.6,
) -> Tensor:
    """Up to ``count`` rectangles, with sides in [smallest, largest] of the image's."""
    shape = (2, count, 1, 1)
    side = smallest + (largest - smallest) * rand(x, shape, generator, 0)
    first = rand(x, shape, generator, 1) * (1 - side)
    places = rand(x, (count, 1, 1), generator, 2).argsort(1)
    used = places < 1 + (count * rand(x, (1, 1, 1), generator, 3)).floor().clamp(max=count - 1)
    end = first + side
    y, z = _pixels(x)
    inside = (first[:, 0] <= y) & (y < end[:, 0]) & (first[:, 1] <= z) & (z < end[:, 1])
    return (inside & used).any(1, keepdim=True).float()


def brush_strokes(
    x: Tensor,
    generator: KeyedGenerator | None = None,
    *,
    strokes: int = 3,
    vertices: int = 5,
    narrowest: float = 0.06,
    widest: float = 0.2,
) -> Tensor:
    """Broad lines that turn at random, after the free-form masks of DeepFill v2 (arXiv 1806.03589, Sec. 3.4).

    The pixels nearer than half a width to any of the segments of a random walk.
    """
    turns = (rand(x, (strokes, vertices), generator, 0) - 0.5) * math.pi
    angle = turns.cumsum(2) + 2 * math.pi * rand(x, (strokes, 1), generator, 1)
    length = 0.1 + 0.25 * rand(x, (strokes, vertices), generator, 2)
    steps = length.unsqueeze(-1) * torch.stack([angle.sin(), angle.cos()], -1)
    origin = rand(x, (strokes, 1, 2), generator, 3)
    points = torch.cat([origin, origin + steps.cumsum(2)], 2).clamp(0, 1)  # [b, stroke, vertex, (y, x)]
    width = narrowest + (widest - narrowest) * rand(x, (strokes, 1, 1, 1), generator, 4)

    y, z = _pixels(x)
    begin, end = points[:, :, :-1, :, None, None], points[:, :, 1:, :, None, None]
    along = end - begin
    from_begin = torch.stack(torch.broadcast_tensors(y, z)) - begin  # [b, stroke, segment, (y, x), h, w]
    squared_length = (along**2).sum(3, keepdim=True).clamp(min=1e-12)
    share = ((from_begin * along).sum(3, keepdim=True) / squared_length).clamp(0, 1)
    distance = (from_begin - share * along).square().sum(3).sqrt()  # [b, stroke, segment, h, w]
    return (distance < width / 2).flatten(1, 2).any(1, keepdim=True).float()


def outpainting(
    x: Tensor, generator: KeyedGenerator | None = None, *, smallest: float = 0.25, largest: float = 0.75
) -> Tensor:
    """All but a rectangle, with sides in [smallest, largest] of the image's."""
    return 1 - rectangles(x, generator, count=1, smallest=smallest, largest=largest)


def whole_image(x: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
    """Everything: generation without a known part."""
    return torch.ones(x.shape[0], 1, *x.shape[2:], device=x.device)


def _pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of the pixels as a share of height, ``[h, 1]``, and width, ``[1, w]``."""
    h, w = x.shape[2:]
    y = (torch.arange(h, device=x.device) + 0.5) / h
    z = (torch.arange(w, device=x.device) + 0.5) / w
    return y[:, None], z[None, :]
