"""A network for each range of noise levels."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.guidance import renoising
from diffusion_labs.conditioning import (
    ConditionalInputs,
    ConditionalModule,
    check_timestep,
    for_sampling,
    without_guidance,
)
from diffusion_labs.output import DiffusionOutput


class ExpertDenoisers(Adapter):
    """Gives each sample to the network that is for its time: the expert denoisers of eDiff-I (arXiv 2211.01324).

    The refiner of Stable Diffusion XL is such an expert, and the network that upsamplers of unCLIP call in their last
    step. As much is computed as by one network: each gets its own samples, all of them where they have one time, as
    in sampling. For that the host waits for the times once a call. Where the adapter itself is compiled there is no
    branch on them, and every network computes every sample; compile the networks inside instead.

    In train mode a network without samples computes one that counts for nothing, so that all parameters have gradients
    on every process, as DDP and FSDP need it. To train one expert at a time, give its sampler a density of its range.

    Conditions may be those of only some of the networks; the others ignore them.

    Args:
        model: network or adapter for the times above all of the experts'.
        experts: networks or adapters by the highest time that each is for; from there it goes down to that of the next.

    Raises:
        ValueError: for no experts.

    Example:
        >>> model = ExpertDenoisers(base, {199: refiner})
        >>> thirds = ExpertDenoisers(high, {333: low, 666: middle})
    """

    needs = frozenset({"time"})

    def __init__(self, model: nn.Module, experts: Mapping[float, nn.Module]) -> None:
        if not experts:
            raise ValueError("experts is empty; give a network for the times up to some one: {highest time: network}")
        highest = sorted(experts)
        networks = [*(experts[time] for time in highest), model]
        names = [getattr(network, "condition_names", None) for network in networks]
        every = frozenset().union(*(known or () for known in names))
        super().__init__(model, every)
        self.condition_names = None if None in names else every
        self.experts = nn.ModuleList(networks[:-1])
        self.highest_times = tuple(highest)
        for module in self.experts.modules():
            if isinstance(module, ConditionalModule):
                module.outer_names = module.outer_names | every

    def constructor_arguments(self) -> dict[str, Any]:
        """What the constructor would be given for the same adapter as it is now."""
        return {"model": self.model, "experts": dict(zip(self.highest_times, self.experts, strict=True))}

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule`` and the class."""
        conditions = self.check_conditions(conditional_inputs, x)
        check_timestep(timestep, x)
        networks, which = self.networks(), self.expert_of(timestep)
        rows = torch.arange(x.shape[0], device=x.device)
        if torch.compiler.is_compiling():  # parts of the batch, or a branch on a value, would break the graph
            return _rows([network(x, timestep, conditions) for network in networks], which * x.shape[0] + rows)

        counts = which.bincount(minlength=len(networks)).tolist()
        if not self.training and x.shape[0] in counts:
            output: DiffusionOutput = networks[counts.index(x.shape[0])](x, timestep, conditions)
            return output
        order = which.argsort(stable=True)
        parts = [part if len(part) or not self.training else order[:1] for part in order.split(counts)]
        outputs = [
            network(x[part], timestep[part], {name: value[part] for name, value in conditions.items()})
            for network, part in zip(networks, parts, strict=True)
            if len(part)
        ]
        starts = accumulate(map(len, parts), initial=0)
        places = torch.cat([start + rows[:count] for start, count in zip(starts, counts, strict=False)])
        return _rows(outputs, places[order.argsort()])

    def networks(self) -> list[nn.Module]:
        """All of them, from the lowest times to the highest."""
        return [*self.experts, self.model]

    def expert_of(self, timestep: Tensor) -> Tensor:
        """The place among ``networks`` of each time's, int64 ``[b]``."""
        return torch.stack([timestep > time for time in self.highest_times]).sum(0)

    def unguided(self) -> nn.Module:
        """All of the networks without guidance."""
        return self._each(without_guidance)

    def for_sampling(self) -> nn.Module:
        """All of the networks as they are for one sampling."""
        return self._each(for_sampling)

    def _each(self, change: Callable[[nn.Module], nn.Module]) -> nn.Module:
        experts = [change(expert) for expert in self.experts]
        same = all(changed is expert for changed, expert in zip(experts, self.experts, strict=True))
        return self._around(model=change(self.model), experts=self.experts if same else nn.ModuleList(experts))

    @property
    def null_conditions(self) -> Mapping[str, int]:
        """Those of all networks."""
        return self._merged("null_conditions")

    @property
    def condition_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Those of all networks."""
        return self._merged("condition_shapes")

    @property
    def attention_blocks(self) -> tuple[str, ...]:
        """Those of the networks, if they are the same in all."""
        blocks = {getattr(network, "attention_blocks", ()) for network in self.networks()}
        return blocks.pop() if len(blocks) == 1 else ()

    def _merged(self, name: str) -> dict[str, Any]:
        return {key: value for network in self.networks() for key, value in getattr(network, name, {}).items()}


def _rows(outputs: Sequence[DiffusionOutput], places: Tensor) -> DiffusionOutput:
    """Rows of outputs that are below each other; a field that one of them has not, none has."""
    if any(output.renoise_prediction is not None for output in outputs):
        outputs = [output._replace(renoise_prediction=renoising(output)) for output in outputs]
    fields = zip(*outputs, strict=True)
    return DiffusionOutput._make(
        [None if any(value is None for value in field) else torch.cat(field)[places] for field in fields]
    )
