"""A data set of images that fits in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_labs.data.errors import DataError
from diffusion_labs.data.fingerprint import some
from diffusion_labs.files import tensors_sha256


class TensorImages:
    """Images of one size with a class each, held in memory: a map-style data set.

    ``dataset[i]`` is ``{"x": uint8 [c, h, w], "class": int64 []}``. ``dataset.__getitems__(indices)``
    is the batch ``{"x": uint8 [b, c, h, w], "class": int64 [b]}`` in one indexing call. ``Batches`` uses it.
    With torch's ``DataLoader``, pass ``collate_fn=dict``: the batch is made already.

    Args:
        images: ``[n, c, h, w]`` uint8, 0..255.
        labels: ``[n]`` integers, each the number of a class.
        class_names: a name for each class.

    Raises:
        DataError: if shapes or dtypes are others, or a label has no name.

    Example:
        >>> images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
        >>> dataset = TensorImages(images, torch.tensor([0, 1]), ["a", "b"])
        >>> dataset[1]["class"]
        tensor(1)
    """

    def __init__(self, images: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise DataError(
                f"images must be uint8 [n, c, h, w], got {images.dtype} {list(images.shape)}; "
                "scale to 0..255 and add the missing dimensions"
            )
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise DataError(
                f"labels must be {len(images)} integers, one per image, got {labels.dtype} {list(labels.shape)}"
            )
        if len(images) == 0:
            raise DataError("images is empty; a data set needs at least one image")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(class_names):
            raise DataError(
                f"labels span {low}..{high}, but the {len(class_names)} class_names number 0..{len(class_names) - 1}"
            )
        self.images = images
        self.labels = labels.long()
        self.class_names = tuple(class_names)

    @property
    def num_classes(self) -> int:
        """How many classes there are, present in this split or not."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def fingerprint(self) -> str:
        """Of the classes, and of some images."""
        some_images = self.images[some(len(self))]
        return tensors_sha256({"images": some_images, "labels": self.labels})[:16]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.images[index], "class": self.labels[index]}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return {"x": self.images[chosen], "class": self.labels[chosen]}
