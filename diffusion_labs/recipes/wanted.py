"""What is asked of a trained model: classes by their names, or captions."""

import torch
from torch import Tensor

from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.spelling import unknown


def wanted(sizes: ModelSizes, class_name: str | None, prompt: str | None, count: int) -> Tensor | list[str]:
    """The class of each picture, ``[count]``, or the caption.

    Args:
        sizes: of the model.
        class_name: the class; all in turn if ``None``.
        prompt: the caption, of models that take captions; none if ``None``.
        count: how many pictures.

    Raises:
        ValueError: for a class that there is not, and for what the model does not take.
    """
    captions = "caption" in sizes.conditions
    if captions and class_name is not None:
        raise ValueError("this model draws what a caption says, not a class; use --prompt")
    if captions:
        return [prompt or ""] * count
    if prompt is not None:
        raise ValueError("this model takes no captions; leave --prompt out")
    names = list(sizes.class_names)
    if class_name is None:
        return torch.arange(count) % max(1, len(names))
    if not names:
        raise ValueError("this model has no classes; leave --class out")
    if class_name not in names:
        raise ValueError(unknown("class", class_name, names))
    return torch.full((count,), names.index(class_name))


def check_complete(sizes: object) -> None:
    """Raise a ``ValueError`` if a sample needs an image, or is none."""
    if not isinstance(sizes, ModelSizes):
        raise ValueError(f"a {type(sizes).__name__} draws no images; use it from Python: model, sizes = load_run(...)")
    if sizes.known:
        raise ValueError(
            f"this model restores images and needs {list(sizes.known)}; use it from Python: load_run and "
            "draw(..., known=...)"
        )
