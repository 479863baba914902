"""Groups of processes that compute each batch together, each with some heads and inner channels of every layer.

Tensor parallelism, Megatron-LM (arXiv 1909.08053, section 3). A layer that says how it is divided (``Partition``)
becomes, on each process of a group, a smaller one of its kind. What goes into it is the same everywhere, and its
gradient is summed over the group; what comes out of it is a part, and is summed in the forward pass. All else is
computed by each process of the group alike.

To the rest of training the small layers are ordinary ones: the processes that have the same part, one of each group,
share it by DDP or FSDP2. States are whole: layers and optimizer join the parts in ``state_dict()``, which all processes
must call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.partition import Partition
from diffusion_labs.training.divided_layer import Cut, Group, ProcessGroup, divide
from diffusion_labs.training.options import OptionError
from diffusion_labs.training.parallelism import whole
from diffusion_labs.training.state import TrainState
from diffusion_labs.training.world import World


class TensorGroup:
    """What the training loop needs to know of the divided layers; without any, that nothing is to be done.

    Attributes:
        optimizer: of all parameters.
        cuts: how they are cut, by their places in the optimizer.
        partial: the places of those that are whole, but used for a part, so that their gradients are parts of a sum.
        group: the processes that compute a batch together.
        peers: those that have the same part, one of each group; all, if layers are whole.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        cuts: dict[nn.Parameter, Cut],
        partial: Iterable[nn.Parameter],
        group: Group | None = None,
        peers: Any = None,
    ) -> None:
        place = {parameter: i for i, parameter in enumerate(_parameters_of(optimizer))}
        self.optimizer = optimizer
        self.cuts = {place[parameter]: cut for parameter, cut in cuts.items() if parameter in place}
        self.partial = [place[parameter] for parameter in partial if parameter in place]
        self.group = group
        self.peers = peers

    def complete_gradients(self) -> None:
        """Sum the gradients of what each process has used for its part alone; after the last backward pass."""
        parameters = _parameters_of(self.optimizer)
        gradients = [_own(parameters[i].grad) for i in self.partial if parameters[i].grad is not None]
        if gradients and self.group is not None:
            total = self.group.sum(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, summed in zip(gradients, total.split([value.numel() for value in gradients]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def gradient_norm(self, parameters: Sequence[Tensor]) -> Tensor:
        """The norm of the gradient of some parameters of the optimizer, of all parts."""
        if self.group is None:
            return norm_of_gradients(parameters)
        everything, device = _parameters_of(self.optimizer), parameters[0].device
        in_parts = {everything[i] for i in self.cuts}
        part, rest = (
            whole(norm_of_gradients([value for value in parameters if (value in in_parts) is cut])).to(device)
            for cut in (True, False)
        )
        return (self.group.sum(part.square()) + rest.square()).sqrt()

    def join_moments(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The state of the optimizer with whole tensors in place of those that are cut as their parameters are."""
        if self.group is None:
            return state
        parameters = _parameters_of(optimizer)
        moments = {
            place: {
                name: self.group.join(value, cut) if value.shape == parameters[place].shape else value
                for name, value in state["state"][place].items()
            }
            for place, cut in self.cuts.items()
            if place in state["state"]
        }
        return {**state, "state": state["state"] | moments}


def describe_layers(model: nn.Module, size: int) -> str:
    """What is printed of the layers that a group of processes divides, before it does."""
    units = [partition.units for _, partition in _divisible(model)]
    if not units:
        return "no layer of this model can be divided"
    kept = sorted({count for count in units if count % size})
    divided = sum(count % size == 0 for count in units)
    why = f"; the others have {', '.join(map(str, kept))} heads or channels, and stay whole" if kept else ""
    return f"groups of {size} divide {divided} of {len(units)} attentions and feed-forward networks{why}"


def grouped(world: World, size: int, model: nn.Module) -> World:
    """The processes in groups of so many, or each for itself if the model has no layer that could be divided.

    The latter may be a stage of a recipe, as the training of an autoencoder.

    Raises:
        OptionError: if the processes cannot be divided into such groups, or none of the layers.
    """
    if size == 1:
        return world
    if world.size % size:
        raise OptionError(f"tensor_parallel ({size}) must divide the number of processes ({world.size})")
    units = sorted({partition.units for _, partition in _divisible(model)})
    if units and all(count % size for count in units):
        raise OptionError(
            f"tensor_parallel ({size}) must divide the heads or the inner width of a layer, of which this model has "
            f"{', '.join(map(str, units))}; choose another number"
        )
    return replace(world, tensor=size if units else 1)


def divide_layers(state: TrainState, world: World, *, timeout: float) -> TensorGroup:
    """Leave each process its part of the layers of a state, in the model, its averages and the optimizer.

    Args:
        state: with whole tensors.
        world: the processes, in groups.
        timeout: minutes after which a process that waits for another gives up.
    """
    if world.tensor == 1:
        return TensorGroup(state.optimizer, {}, [])
    ranks, rank = torch.arange(world.size).view(-1, world.tensor), world.rank % world.tensor
    group, peers = (
        torch.distributed.new_subgroups_by_enumeration(divided.tolist(), timedelta(minutes=timeout))[0]
        for divided in (ranks, ranks.T)
    )
    together = ProcessGroup(group)
    models = (state.objective, *(average.model for average in (state.ema, *state.power_averages)))
    cuts, partial = divide_models(models, state.optimizer, world.tensor, rank, together)
    tensors = TensorGroup(state.optimizer, cuts, partial, together, peers)
    state.optimizer.register_state_dict_post_hook(tensors.join_moments)
    state.objective.peers = peers
    return tensors


def divide_models(
    models: Iterable[nn.Module], optimizer: torch.optim.Optimizer, size: int, rank: int, group: Group
) -> tuple[dict[nn.Parameter, Cut], list[nn.Parameter]]:
    """Leave one process its part of the layers of some models, and of the moments of their optimizer.

    Returns:
        How parameters were cut, and which are whole, but used for a part.
    """
    cuts: dict[nn.Parameter, Cut] = {}
    partial: list[nn.Parameter] = []
    for model in models:
        for layer, partition in _divisible(model):
            if partition.units % size == 0:
                for parameter, cut in divide(layer, partition, size, rank, group).items():
                    if parameter not in cuts:  # the averaged model has the frozen ones of the model itself
                        cuts[parameter] = cut
                        _cut(parameter, cut, rank, optimizer)
                partial += [value for name in partition.within for value in layer.get_submodule(name).parameters()]
    return cuts, partial


def _cut(parameter: nn.Parameter, cut: Cut, rank: int, optimizer: torch.optim.Optimizer) -> None:
    """Leave a process its part of a parameter, and of its moments."""
    moments = optimizer.state.get(parameter, {})
    for name, value in moments.items():
        if value.shape == parameter.shape:
            moments[name] = cut.part(value, rank)
    parameter.data = cut.part(parameter.data, rank)


def norm_of_gradients(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of the gradient of some parameters; 0 of none."""
    return torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])


def _divisible(model: nn.Module) -> list[tuple[nn.Module, Partition]]:
    """The layers that say how they are divided."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "partition")]
    return [(layer, layer.partition()) for layer in layers]


def _parameters_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _own(value: Any) -> Tensor:
    """What this process has of a tensor."""
    own: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return own
