"""What the updates of a recipe need, before there is a run."""

from collections.abc import Mapping
from typing import Any, Literal

from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.stages import Rehearsal
from diffusion_labs.training import TracedUpdate, trace_update, unallocated


def trace_recipe(
    name: str, arguments: Mapping[str, Any], *, world_size: int, device: Literal["cuda", "cpu"] = "cuda"
) -> dict[str, TracedUpdate]:
    """An update of each stage that trains, by the stage's name, on weights without memory; see ``trace_update``.

    The data are read, as a recipe learns the sizes of its model from them.

    Args:
        name: of the recipe.
        arguments: of the recipe.
        world_size: number of devices, which share each batch.
        device: see ``trace_update``.

    Raises:
        DataError: if the devices cannot share a batch equally.
        ValueError: for arguments that the recipe cannot use.
    """
    rehearsal = Rehearsal()
    with unallocated():
        for stage in find_recipe(name)(**arguments).stages:
            stage.rehearse(rehearsal)
    return {
        stage: trace_update(experiment, next(experiment.batches.shared(0, world_size)), device=device)
        for stage, experiment in rehearsal.experiments.items()
    }
