"""What sources of images from files have in common."""

from collections.abc import Sequence

from diffusion_labs.data.damage import check_policy
from diffusion_labs.data.decode import check_format
from diffusion_labs.data.errors import DataError


class ImageSource:
    """Base class: images of one size, with or without classes.

    Attributes:
        size: height and width.
        channels: 3 for RGB, 1 for grey.
        class_names: the classes in the order of their numbers; empty if images have none.
    """

    size: int
    channels: int
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 if images have none."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.channels, self.size, self.size


def check_options(
    size: int, channels: int, on_error: str, num_classes: int | None, class_names: Sequence[str] | None
) -> None:
    """Raise a ``DataError`` unless the options of a source of images are possible."""
    check_format(size, channels)
    check_policy(on_error)
    if num_classes is not None and class_names is not None:
        raise DataError("num_classes and class_names are both given; class_names alone says both")
