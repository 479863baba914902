"""The call signature that networks and adapters share, and the names of their conditional inputs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusion_labs.output import DiffusionOutput

ConditionalInputs = Mapping[str, Tensor]


class ConditionalModule(nn.Module):
    """Base class of the networks and adapters of this library.

    All are called as ``module(x, timestep, conditional_inputs)`` and return a ``DiffusionOutput``,
    so they stack. A module takes the conditional inputs it knows, leaves the others to the modules
    that it wraps, and never writes to the mapping. A key that no module of the stack knows is a
    misspelling: ``check_conditions`` raises an error that names it.

    Attributes:
        condition_names: the keys that this module or a module inside it consumes. ``None`` if that
            cannot be known, because the innermost network is not a ``ConditionalModule``; then
            every key is accepted.
        outer_names: the keys that the adapters around this module consume. An adapter adds its own to the
            modules inside it when it is made; they are accepted here, and not used.
    """

    condition_names: frozenset[str] | None
    outer_names: frozenset[str]

    def __init__(self, condition_names: Iterable[str] | None = ()) -> None:
        super().__init__()
        self.condition_names = None if condition_names is None else frozenset(condition_names)
        self.outer_names = frozenset()

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Call the network.

        Args:
            x: noisy data, ``[b, c, ...]``.
            timestep: the time of each sample, ``[b]``: float64 of continuous schedules, int64 of discrete ones, but
                float64 where a solver or a grid goes between their steps.
            conditional_inputs: tensors by name, each with the batch as its first dimension.

        Raises:
            ValueError: for a key that nothing in the stack consumes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def unguided(self) -> nn.Module:
        """The same model without guidance, on the same weights: itself, unless it is an adapter."""
        return self

    def for_sampling(self) -> nn.Module:
        """The model for the calls of one sampling, from noise to data: itself, unless it keeps what they share."""
        return self

    def check_conditions(self, conditional_inputs: ConditionalInputs | None, x: Tensor) -> ConditionalInputs:
        """Return the conditional inputs, empty for ``None``.

        Raises:
            ValueError: for a key that nobody in the stack knows, or a value whose first dimension is
                not the batch of ``x``.
        """
        if conditional_inputs is None:
            return {}
        if self.condition_names is not None:
            understood = self.condition_names | self.outer_names
            unknown = [name for name in conditional_inputs if name not in understood]
            if unknown:
                raise ValueError(
                    f"conditional_inputs has {sorted(unknown)}, which nothing in this model consumes; "
                    f"it understands {sorted(understood)}. Rename or drop the others"
                )
        for name, value in conditional_inputs.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"conditional_inputs['{name}'] is a {type(value).__name__}; give a tensor")
            if value.ndim == 0 or value.shape[0] != x.shape[0]:
                raise ValueError(
                    f"conditional_inputs['{name}'] has shape {list(value.shape)}, but x has a batch of "
                    f"{x.shape[0]}; give one entry per sample"
                )
        return conditional_inputs


def without_guidance(model: nn.Module) -> nn.Module:
    """The model without guidance, on the same weights; one that is not a ``ConditionalModule`` has none."""
    unguided: Callable[[], nn.Module] = getattr(model, "unguided", lambda: model)
    return unguided()


def for_sampling(model: nn.Module) -> nn.Module:
    """The model for the calls of one sampling; one that is not a ``ConditionalModule`` keeps nothing.

    Nor does one in a wrapper that passes its attributes on, as ``torch.compile``'s: the wrapper is what is called.
    """
    begun: Callable[[nn.Module], nn.Module] = getattr(type(model), "for_sampling", lambda own: own)
    return begun(model)


def mask_of(name: str) -> str:
    """The key of the mask of a condition's tokens."""
    return f"{name}_mask"


def negative_of(name: str) -> str:
    """The key of what a condition is guided away from."""
    return f"negative_{name}"


def check_floating(x: Tensor) -> None:
    """Raise a ``ValueError`` unless the data are floating point."""
    if not x.dtype.is_floating_point:
        raise ValueError(f"x has dtype {x.dtype}, but must be floating point; use .float()")


def check_timestep(timestep: Tensor, x: Tensor) -> None:
    """Raise a ``ValueError`` unless there is one time for each sample."""
    if not isinstance(timestep, Tensor):
        raise ValueError(
            f"timestep is {timestep!r}, but must be a tensor [{x.shape[0]}]: one time for each sample of x; give "
            f"torch.full(({x.shape[0]},), {timestep!r})"
        )
    if timestep.dim() != 1 or timestep.shape[0] != x.shape[0]:
        raise ValueError(
            f"timestep has shape {list(timestep.shape)}, but must be [{x.shape[0]}]: one time for each "
            "sample of x; use timestep.expand"
        )


def check_output(output: object, x: Tensor, model: nn.Module) -> None:
    """Raise unless a model returned a ``DiffusionOutput`` that predicts something of the shape of its input.

    Raises:
        TypeError: if it returned something else.
        ValueError: if the prediction has another shape.
    """
    if not isinstance(output, DiffusionOutput):
        raise TypeError(
            f"{type(model).__name__} returned a {type(output).__name__}; return DiffusionOutput(prediction), with a "
            "prediction of the shape of x"
        )
    if output.prediction.shape != x.shape:
        raise ValueError(
            f"{type(model).__name__} predicts {list(output.prediction.shape)} for x of shape {list(x.shape)}; they "
            "must be equal. A network that gets more channels than the data has, as in InPainting, has out_channels of "
            "the data's"
        )


def check_identity(identity: Tensor, attention_blocks: Sequence[str]) -> None:
    """Check the conditional input ``identity_attention``: for which samples which attention is the identity.

    Raises:
        ValueError: unless it is bool ``[b, n]``, with one column for each of the n attention blocks.
    """
    if identity.dtype != torch.bool or list(identity.shape[1:]) != [len(attention_blocks)]:
        raise ValueError(
            f"'identity_attention' is {identity.dtype} of shape {list(identity.shape)}, but must be torch.bool of "
            f"shape {[len(identity), len(attention_blocks)]}: one column for each of {tuple(attention_blocks)}"
        )
