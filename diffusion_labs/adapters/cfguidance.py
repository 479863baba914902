"""Classifier-free guidance."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput


class CFGuidance(Adapter):
    """Classifier-free guidance (arXiv 2207.12598), in the convention of Imagen and Stable Diffusion.

    In train mode each condition is replaced by its null value with its own probability, or several
    are jointly. In eval mode the model is called once with twice the batch, with and without the
    conditions, and the prediction is ``u + guidance_scale * (c - u)``; at scale 1, or where no
    condition is given, it is called once with the batch itself. A learned variance is taken from the
    conditional half. (Ho and Salimans' w is ``guidance_scale - 1``.)

    The null value of a condition is the one given here, or the network's null class, or zeros. A
    condition that is absent from a call counts as null. Null tokens are one token, by ``<name>_mask``, where
    the network takes one.

    Args:
        model: network or adapter that takes the conditions.
        dropout: probability of dropping, by name of the condition; a tuple of names is dropped
            jointly. These conditions are the ones guided.
        null: null values by name: an ``nn.Parameter`` is learned, a tensor or number is fixed. Its
            shape is that of one sample's condition, or broadcasts to it (``[d]`` for tokens ``[n, d]``).
        guidance_scale: 1 is no guidance, 0 unconditional. May be set at any time.

    Raises:
        ValueError: for a probability outside [0, 1], a name given twice, or one that the model does
            not understand.

    Example:
        >>> model = CFGuidance(network, dropout={"class": 0.1, ("text", "image"): 0.2}, guidance_scale=2.0)
    """

    def __init__(
        self,
        model: nn.Module,
        dropout: Mapping[str | tuple[str, ...], float],
        *,
        null: Mapping[str, Tensor | float] | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        super().__init__(model)
        self.groups = tuple(((key,) if isinstance(key, str) else key, p) for key, p in dropout.items())
        self.guided = tuple(name for names, _ in self.groups for name in names)
        self.guidance_scale = guidance_scale
        nulls = {**self.null_conditions, **(null or {})}
        self._check(dropout, null or {})
        for name in self.guided:
            if name not in nulls:
                continue
            value = nulls[name]
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"null_{name}", value)
            else:
                self.register_buffer(f"null_{name}", torch.as_tensor(value), persistent=False)

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule`` and the class."""
        conditions = dict(self.check_conditions(conditional_inputs, x))
        given = any(name in conditions for name in self.guided)
        nulls = self._nulls(conditions, x)
        for name, null in nulls.items():
            everything = torch.ones_like(null) if null.dtype == torch.bool else null  # a mask, or an absent condition
            conditions.setdefault(name, everything)

        if self.training:
            return self.model(x, timestep, self._drop(conditions, nulls, x))
        if self.guidance_scale == 1 or not given:
            return self.model(x, timestep, conditions)

        both = {name: torch.cat([c, nulls.get(name, c)]) for name, c in conditions.items()}
        output: DiffusionOutput = self.model(torch.cat([x, x]), torch.cat([timestep, timestep]), both)
        c, u = output.prediction.chunk(2)
        variance_value = None if output.variance_value is None else output.variance_value.chunk(2)[0]
        return DiffusionOutput(u + self.guidance_scale * (c - u), variance_value)

    def _drop(self, conditions: Mapping[str, Tensor], nulls: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """Conditions of which some samples' are replaced by their null values."""
        dropped = dict(conditions)
        for names, p in self.groups:
            drop = torch.rand(x.shape[0], device=x.device) < p
            for name in (*names, *map(mask_of, names)):
                if name in nulls:
                    chosen = drop.reshape(-1, *[1] * (conditions[name].ndim - 1))
                    dropped[name] = torch.where(chosen, nulls[name], conditions[name])
        return dropped

    def _nulls(self, conditions: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """The null values of the guided conditions for the batch, and the masks of null tokens.

        One null token is one token, however long the sequence that it takes the place of.
        """
        nulls = {}
        for name in self.guided:
            null = self._null(name, conditions.get(name), x)
            if null is None:
                continue
            nulls[name] = null
            own: Tensor | None = getattr(self, f"null_{name}", None)
            has_mask = mask_of(name) in (self.condition_names or ()) and None in self.condition_shapes.get(name, ())
            if has_mask and (own is None or own.ndim < 2):
                first = torch.arange(null.shape[1], device=x.device) == 0
                nulls[mask_of(name)] = first.expand(x.shape[0], -1)
        return nulls

    def _null(self, name: str, condition: Tensor | None, x: Tensor) -> Tensor | None:
        """The null value of a condition for the batch; ``None`` if it is absent, and null to the network so."""
        null: Tensor | None = getattr(self, f"null_{name}", None)
        if condition is not None:
            shape = condition.shape
        elif null is None:
            return None
        else:
            sides = self.condition_shapes.get(name, tuple(null.shape))
            shape = torch.Size([x.shape[0], *(1 if side is None else side for side in sides)])
        if null is not None:
            return (null if condition is None else null.to(condition.dtype)).expand(shape)
        assert condition is not None
        if not condition.is_floating_point():
            raise ValueError(
                f"conditional_inputs['{name}'] has integers, which have no zero embedding; "
                f"give CFGuidance null={{'{name}': the index of the null class}}"
            )
        return torch.zeros_like(condition)

    def _check(self, dropout: Mapping[str | tuple[str, ...], float], null: Iterable[str]) -> None:
        for key, p in dropout.items():
            if not 0 <= p <= 1:
                raise ValueError(f"dropout of {key!r} is {p}; a probability must be in [0, 1]")
        if len(set(self.guided)) < len(self.guided):
            raise ValueError(f"dropout names a condition twice: {self.guided}")
        for place, names in (("dropout", self.guided), ("null", null)):
            known = self.guided if place == "null" else self.condition_names
            unknown = set() if known is None else set(names) - set(known)
            if unknown:
                raise ValueError(f"{place} names {sorted(unknown)}, but only {sorted(known or ())} can be guided")


def mask_of(name: str) -> str:
    """The key of the mask of a condition's tokens."""
    return f"{name}_mask"
