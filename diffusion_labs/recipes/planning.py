"""What the updates of a recipe need, before there is a run."""

from collections.abc import Mapping
from typing import Any, Literal

from diffusion_labs.checkpointing import Checkpointing, set_checkpointing
from diffusion_labs.recipes.catalogue import find_recipe
from diffusion_labs.recipes.stages import Rehearsal
from diffusion_labs.training import TracedUpdate, trace_update, unallocated
from diffusion_labs.training.tensor_parallelism import grouped
from diffusion_labs.training.world import World


def trace_recipe(
    name: str,
    arguments: Mapping[str, Any],
    *,
    world_size: int,
    device: Literal["cuda", "cpu"] = "cuda",
    checkpointing: Checkpointing | None = None,
    tensor_parallel: int = 1,
) -> dict[str, TracedUpdate]:
    """An update of each stage that trains, by the stage's name, on weights without memory; see ``trace_update``.

    The data are read, as a recipe learns the sizes of its model from them.

    Args:
        name: of the recipe.
        arguments: of the recipe.
        world_size: number of devices, which share each batch.
        device: see ``trace_update``.
        checkpointing: of all networks that are trained; as the recipe builds them if not given.
        tensor_parallel: how many devices divide the layers of a network; see ``TrainOptions``.

    Raises:
        DataError: if the devices cannot share a batch equally.
        OptionError: if they cannot divide the layers of a network.
        ValueError: for arguments that the recipe cannot use, or if a network cannot recompute its blocks.
    """
    rehearsal = Rehearsal()
    with unallocated():
        for stage in find_recipe(name)(**arguments).stages:
            stage.rehearse(rehearsal)
    if checkpointing is not None:
        for experiment in rehearsal.experiments.values():
            set_checkpointing(experiment.objective, checkpointing)
    traced = {}
    for title, experiment in rehearsal.experiments.items():
        world = grouped(World(size=world_size), tensor_parallel, experiment.objective)
        batch = next(experiment.batches.shared(0, world.data_size))
        traced[title] = trace_update(experiment, batch, device=device, tensor=world.tensor)
    return traced
