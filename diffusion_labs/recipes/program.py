"""The model of a run as a program that PyTorch runs alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion_labs.recipes.drawing import guided_by, settings
from diffusion_labs.recipes.wanted import check_complete


def write_program(
    model: nn.Module, file: Path, sizes: Any, *, write: Callable[..., None], guidance_scale: float
) -> None:
    """Write a model with its own sampler, called with noise, and the class if there are classes.

    Args:
        model: what ``sizes.build`` returned, trained, in eval mode. It is left as it was.
        file: see ``export_sampler``.
        sizes: of the model.
        write: ``export_sampler`` or ``compile_sampler``.
        guidance_scale: see ``CFGuidance``; it is part of the program.

    Raises:
        ValueError: see ``export_sampler``; and for models that draw from captions, or what an image lacks.
    """
    check_complete(sizes)
    if "caption" in sizes.conditions:
        raise ValueError(
            "this model draws from captions, and a program takes no texts; use export_sampler from Python, with "
            "conditions that the conditioner of the model has encoded"
        )
    given: list[tuple[Any, ...]] = []
    conditions = {name: torch.zeros(2, dtype=torch.int64) for name in sizes.conditions}
    noting = model.register_forward_pre_hook(lambda _, args, words: given.append((*args, words)), with_kwargs=True)
    own = sizes.sampler(model)
    with guided_by(own, guidance_scale):
        with settings(own, eval_steps=1, progress_bar=False), noting:
            sizes.sample(model, 2, conditions, None)
        x, words = given[0]
        write(model, file, x, words["conditional_inputs"] or None)
