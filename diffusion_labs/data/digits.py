"""The UCI handwritten digits, shipped inside the package."""

import gzip
from importlib.resources import files

import torch
from torch import Tensor

from diffusion_labs.data.errors import DataError
from diffusion_labs.data.tensor_images import TensorImages

TRAIN_IMAGES_PER_CLASS = 150
SPLIT_SEED = 1998


class Digits(TensorImages):
    """1,797 real handwritten digits of 8x8 pixels, white on black, in ten classes.

    The test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0; see ``digits.LICENSE.txt`` beside this file). It needs
    neither a download nor scikit-learn.

    The split is fixed and balanced: of each class, 150 images drawn with a fixed seed are for training
    (1,500), the other 24 to 33 for testing (297). The same 13 people wrote both parts.

    Args:
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: for another split.

    Example:
        >>> len(Digits("train")), len(Digits("test")), Digits("test").image_shape
        (1500, 297, (1, 8, 8))
    """

    def __init__(self, split: str = "train") -> None:
        if split not in ("train", "test"):
            raise DataError(f"split is {split!r}; Digits has 'train' and 'test'")
        images, labels = read_digits()
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        chosen[_train_indices(labels)] = True
        if split == "test":
            chosen = ~chosen
        super().__init__(images[chosen], labels[chosen], [str(digit) for digit in range(10)])


def read_digits() -> tuple[Tensor, Tensor]:
    """All 1,797 images, ``[1797, 1, 8, 8]`` uint8, and their digits, ``[1797]`` int64, in the file's order.

    The file's values 0..16 become bytes by ``round(value * 255 / 16)``, so 0 is 0, 8 is 128, 16 is 255.
    """
    text = gzip.decompress(files("diffusion_labs.data").joinpath("digits.csv.gz").read_bytes()).decode("ascii")
    table = torch.tensor([[int(value) for value in line.split(",")] for line in text.splitlines()])
    values, labels = table[:, :64], table[:, 64]
    return (values * 255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8), labels


def _train_indices(labels: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == digit][:TRAIN_IMAGES_PER_CLASS] for digit in range(10)])
