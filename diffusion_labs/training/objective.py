"""From a batch to a scalar."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffusion_labs.output import DiffusionOutput
from diffusion_labs.randomness import SAMPLE_KEY
from diffusion_labs.training.base_objective import BaseObjective


class Objective(BaseObjective):
    """What the training of a diffusion model minimises: ``loss(denoiser(transform(batch)))``.

    Args:
        transform: adds the fields that the denoiser and the loss need, ``xt`` and ``t`` among them.
        denoiser: a network, a stack of adapters, or a sampler in train mode.
        loss: takes the denoiser's output and the transformed batch.
        conditions: fields of the batch that are passed to the denoiser as conditional inputs. So is ``sample_key``,
            where the batch has it and a module of the denoiser takes it, as ``CFGuidance`` does.
        xt_field: noisy data to read.
        time_field: time to read.

    Example:
        >>> objective = Objective(transform, sampler, SimpleLoss(), conditions=["class"])
        >>> objective({"x": images, "class": labels}).backward()
    """

    def __init__(
        self,
        transform: Callable[[dict[str, Any]], Mapping[str, Any]],
        denoiser: nn.Module,
        loss: Callable[[DiffusionOutput, Mapping[str, Any]], Tensor],
        *,
        conditions: Sequence[str] = (),
        xt_field: str = "xt",
        time_field: str = "t",
    ) -> None:
        super().__init__()
        self.transform = transform
        self.denoiser = denoiser
        self.loss = loss
        self.conditions = tuple(conditions)
        names = [getattr(module, "condition_names", None) or () for module in denoiser.modules()]
        self.takes_keys = any(SAMPLE_KEY in known for known in names)
        self.xt_field = xt_field
        self.time_field = time_field

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch.

        Raises:
            KeyError: naming a field that is missing from the transformed batch.
        """
        data = self.transform(batch)
        missing = [name for name in (self.xt_field, self.time_field, *self.conditions) if name not in data]
        if missing:
            raise KeyError(f"the transformed batch lacks {missing}; it has {sorted(data)}")
        keys = (SAMPLE_KEY,) if self.takes_keys and SAMPLE_KEY in data else ()
        conditional_inputs = {name: data[name] for name in (*self.conditions, *keys)}
        output = self.denoiser(data[self.xt_field], data[self.time_field], conditional_inputs)
        return self.loss(output, data)
