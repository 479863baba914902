"""A trained model with another sampler, on the same weights."""

import copy
from itertools import chain
from typing import Any, TypeVar

from torch import nn

from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.samplers import Finding, FittedSampler, Sampler, lint
from diffusion_labs.samplers.grids import Grid

M = TypeVar("M", bound=nn.Module)


def shared_copy(model: M) -> M:
    """A model of its own on the same weights: who changes its settings, or hooks into it, changes nobody else's."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})


def with_sampler(model: Any, sizes: ModelSizes, kind: type[Sampler] | None = None, grid: Grid | None = None) -> Any:
    """A model on the same weights with another sampler.

    Args:
        model: what ``sizes.build`` returned. It is left as it was.
        sizes: of the model.
        kind: the class of the sampler; the model's own if ``None``. All its other arguments are the defaults.
        grid: of times; the sampler's own if ``None``.

    Raises:
        ValueError: for ``FittedSampler``, whose weights ``with_fitted_sampler`` finds.
    """
    if kind is FittedSampler:
        raise ValueError(
            "a fitted sampler has weights for one model; `diffusion-labs sample --sampler fitted` finds them"
        )
    model = shared_copy(model)
    sampler = sizes.sampler(model)
    if kind is not None and kind is not type(sampler):
        other = kind(
            sampler.model,
            sampler.schedule,
            sampler.predictor,
            eval_steps=sampler.eval_steps,
            grid=sampler.grid,
            progress_bar=sampler.progress_bar,
        )
        model = replaced(model, sampler, other.train(sampler.training))
    if grid is not None:
        sizes.sampler(model).grid = grid
    return model


def doubts(model: Any, sizes: ModelSizes, steps: int) -> list[Finding]:
    """What will be seen in the pictures of a model's sampler, whatever its weights, see ``lint``.

    Args:
        model: what ``sizes.build`` or ``with_sampler`` returned.
        sizes: of the model.
        steps: of the sampler.
    """
    own = sizes.sampler(model)
    found = lint(own.schedule, own.predictor, eval_steps=steps, grid=own.grid, sampler=type(own))
    return [finding for finding in found if finding.severity == "warning"]


def replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """The model, in which a part is another."""
    if model is old:
        return new
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if child is old:
                setattr(module, name, new)
    return model
