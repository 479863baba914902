"""A layer that several processes compute together, each with some of its units."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.partition import Partition
from diffusion_labs.training.parallelism import whole


@runtime_checkable
class Group(Protocol):
    """Processes that compute each batch together."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum of what each of them has."""

    def join(self, part: Tensor, cut: "Cut") -> Tensor:
        """The whole of a tensor, of which each of them has a part."""


class ProcessGroup:
    """A group of processes of ``torch.distributed``.

    Args:
        processes: as ``torch.distributed`` knows them.
    """

    def __init__(self, processes: Any) -> None:
        self.processes = processes

    def sum(self, x: Tensor) -> Tensor:
        """See ``Group``."""
        from torch.distributed._functional_collectives import all_reduce, wait_tensor

        total: Tensor = wait_tensor(all_reduce(x.contiguous(), "sum", self.processes))
        return total

    def join(self, part: Tensor, cut: "Cut") -> Tensor:
        """See ``Group``; an exchange between them."""
        part = whole(part.detach()).contiguous()
        parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size(self.processes))]
        torch.distributed.all_gather(parts, part, self.processes)
        return cut.join(parts)


@dataclass(frozen=True)
class Cut:
    """Which channels of a tensor each process of a group has.

    Attributes:
        dim: the dimension of the channels.
        owner: the process, by its place in the group, of each channel, int ``[channels]``.
    """

    dim: int
    owner: Tensor

    def part(self, value: Tensor, rank: int) -> Tensor:
        """The channels of one process, in their order."""
        return value.index_select(self.dim, (self.owner == rank).nonzero().flatten().to(value.device))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole, from the parts of all."""
        joined = torch.cat(list(parts), self.dim)
        order = self.owner.argsort(stable=True).to(joined.device)
        return torch.empty_like(joined).index_copy_(self.dim, order, joined)


def divide(layer: nn.Module, partition: Partition, size: int, rank: int, group: Group) -> dict[nn.Parameter, Cut]:
    """Let a layer compute its units of one of several processes, and return how its parameters are to be cut."""
    cuts = {}
    for dim, modules in ((0, partition.enter), (1, partition.leave)):
        for name, unit in modules.items():
            cut = Cut(dim, unit * size // partition.units)
            module: Any = layer.get_submodule(name)
            if dim == 0:
                module.register_forward_pre_hook(_sum_gradient(group))
            else:
                module = Summed(module, group)
                setattr(layer, name, module)
            own = {key: value for key, value in module.named_parameters() if value.ndim > dim}  # not the sum's bias
            cuts.update(dict.fromkeys(own.values(), cut))
            module.register_state_dict_post_hook(_join_parameters(list(own), cut, group))
    for name in partition.counts:
        setattr(layer, name, getattr(layer, name) // size)
    return cuts


class Summed(nn.Module):
    """A linear layer, or a convolution, of whose input each process has some channels: ``sum_i W_i x_i + bias``.

    Args:
        layer: the whole.
        group: the processes.
    """

    def __init__(self, layer: nn.Module, group: Group) -> None:
        super().__init__()
        self.weight: Tensor = layer.weight  # type: ignore[assignment]
        self.bias: Tensor | None = layer.bias  # type: ignore[assignment]
        self.group = group
        self.multiply: Callable[..., Tensor] = (F.linear, F.conv1d, F.conv2d, F.conv3d)[self.weight.ndim - 2]

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(self.multiply(x, self.weight), self.group)
        if self.bias is None:
            return total
        return total + self.bias.to(total.dtype).reshape(-1, *[1] * (self.weight.ndim - 2))


class _Sum(torch.autograd.Function):
    """The sum over a group, whose gradient is the same everywhere: g of Megatron-LM."""

    @staticmethod
    def forward(x: Tensor, group: Group) -> Tensor:
        return group.sum(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _SumOfGradients(torch.autograd.Function):
    """The same, of which each process of a group uses a part: f of Megatron-LM."""

    @staticmethod
    def forward(x: Tensor, group: Group) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.group = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.sum(gradient), None


def _sum_gradient(group: Group) -> Callable[..., Any]:
    def enter(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (_SumOfGradients.apply(inputs[0], group),)

    return enter


def _join_parameters(names: Iterable[str], cut: Cut, group: Group) -> Callable[..., None]:
    def join(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
        for name in names:
            state[prefix + name] = group.join(state[prefix + name], cut)

    return join
