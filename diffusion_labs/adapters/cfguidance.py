"""Classifier-free guidance."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.combinations import Combine, linear
from diffusion_labs.adapters.condition_dropout import ConditionDropout
from diffusion_labs.adapters.guidance import guide, split, within
from diffusion_labs.adapters.guidance_interval import GuidanceInterval
from diffusion_labs.conditioning import ConditionalInputs, check_timestep, mask_of, negative_of, without_guidance
from diffusion_labs.keeping import kept, stepped
from diffusion_labs.output import DiffusionOutput

Scales = Mapping[str | tuple[str, ...], float]


class CFGuidance(ConditionDropout):
    """Classifier-free guidance (arXiv 2207.12598), in the convention of Imagen and Stable Diffusion.

    In train mode each condition is replaced by its null value with its own probability, or several
    are jointly. In eval mode the model is called once with twice the batch, with and without the
    conditions, and the prediction is ``u + guidance_scale * (c - u)``; at scale 1 or 0, or where no
    condition is given, it is called once with the batch itself. A learned variance is taken from the
    conditional half. (Ho and Salimans' w is ``guidance_scale - 1``.)

    The null value of a condition is the one given here, or the network's null class, or zeros. A
    condition that is absent from a call counts as null. Null tokens are as many as are given here, by
    ``<name>_mask``, where the network takes a mask: one if they are a vector or zeros. The input ``negative_<name>``
    takes the place of the null value, in training too, where it is the encoding of no text, for example (see
    ``Conditioner``); its number of tokens may be another, with ``negative_<name>_mask`` for those that are valid.

    Scales by name guide each condition on its own (Composable Diffusion, arXiv 2206.01714), in one call:
    ``u + sum_i s_i (c_i - u)``, where c_i is the model with condition i and without the others that have a scale.
    A tuple of names is given jointly, and conditions without a scale are in every pass. InstructPix2Pix's two scales
    (arXiv 2211.09800, Eq. 3) are ``{"image": s_I - s_T, ("image", "text"): s_T}``.

    Args:
        model: network or adapter that takes the conditions.
        dropout: probability of dropping, by name of the condition; a tuple of names is dropped
            jointly. These conditions are the ones guided.
        null: null values by name: an ``nn.Parameter`` is learned, a tensor or number is fixed. Its
            shape is that of one sample's condition, or broadcasts to it (``[d]`` for tokens ``[n, d]``). Where the
            network takes a mask of the tokens, their number may be another than the condition's.
        guidance_scale: 1 is no guidance, 0 unconditional; or scales by name or names. May be set at any time.
        combine: makes the guided prediction of those of the passes: ``linear``, ``GuidanceRescale`` or
            ``AdaptiveProjectedGuidance``.
        interval: the noise levels to guide at; the others get one pass with all conditions. All if ``None``.

    Raises:
        ValueError: for a probability outside [0, 1], a name given twice, or one that the model does
            not understand.

    Example:
        >>> model = CFGuidance(network, dropout={"class": 0.1, ("text", "image"): 0.2}, guidance_scale=2.0)
        >>> model.guidance_scale = {"class": 2.0, ("text", "image"): 5.0}
    """

    def __init__(
        self,
        model: nn.Module,
        dropout: Mapping[str | tuple[str, ...], float],
        *,
        null: Mapping[str, Tensor | float] | None = None,
        guidance_scale: float | Scales = 1.0,
        combine: Combine = linear,
        interval: GuidanceInterval | None = None,
    ) -> None:
        super().__init__(model, dropout, null)
        self.guidance_scale = guidance_scale
        self.combine = combine
        self.interval = interval
        self._passes(())

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule`` and the class."""
        check_timestep(timestep, x)
        given = self.check_conditions(conditional_inputs, x)
        conditions, opposed = kept(self.prepared, given, x.shape[0], x.device)
        if self.training:
            return self.model(x, timestep, self.drop(conditions, opposed, x))

        left_out, scales = self._passes(given)
        if left_out == [[]]:
            return self.plain_output(x, timestep, conditions)
        guided = partial(self.guided_output, left_out=left_out, scales=scales)
        return within(self.interval, guided, self.plain_output, x, timestep, conditions, opposed)

    def plain_output(self, x: Tensor, timestep: Tensor, conditions: Mapping[str, Tensor]) -> DiffusionOutput:
        """The pass with all conditions."""
        return self.outputs(x, timestep, [conditions])[0]

    def guided_output(
        self,
        x: Tensor,
        timestep: Tensor,
        conditions: Mapping[str, Tensor],
        opposed: Mapping[str, Tensor],
        *,
        left_out: Sequence[Sequence[str]],
        scales: Sequence[float],
        plain: DiffusionOutput | None = None,
    ) -> DiffusionOutput:
        """One call with all passes, but the one with all conditions if its output is given."""
        inputs = [{**conditions, **without(names, opposed)} for names in left_out if names or plain is None]
        made = iter(self.outputs(x, timestep, inputs))
        outputs = [next(made) if names or plain is None else plain for names in left_out]
        if len(outputs) == 1:
            return outputs[0]
        *conditionals, u = outputs
        return self.guide(u, conditionals, scales, x, timestep)

    def outputs(self, x: Tensor, timestep: Tensor, inputs: Sequence[Mapping[str, Tensor]]) -> Sequence[DiffusionOutput]:
        """One call of the model for all of some inputs; the output of each."""
        n = len(inputs)
        if n == 1:
            return [self.model(x, timestep, inputs[0])]
        batch = kept(self.joined, inputs)
        return split(self.model(torch.cat([x] * n), stepped(self.repeated, timestep, n), batch), n)

    def joined(self, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The inputs of several passes, one below the other."""
        return {key: torch.cat([each[key] for each in inputs]) for key in inputs[0]}

    def unguided(self) -> nn.Module:
        """One conditional pass, where absent conditions are null as they are here."""
        arguments = {**self.constructor_arguments(), "model": without_guidance(self.model), "guidance_scale": 1.0}
        plain = CFGuidance(**arguments)
        plain.training, plain.outer_names = self.training, self.outer_names
        return plain

    def is_plain(self, scales: Sequence[float]) -> bool:
        """Whether guidance changes nothing, so that the one conditional pass is enough."""
        return list(scales) == [1]

    def guide(
        self,
        u: DiffusionOutput,
        conditionals: Sequence[DiffusionOutput],
        scales: Sequence[float],
        x: Tensor,
        timestep: Tensor,
    ) -> DiffusionOutput:
        """The output, from those of the unconditional and the conditional passes."""
        return guide(self.combine, u, conditionals, scales, x, timestep)

    def _passes(self, given: ConditionalInputs | Sequence[str]) -> tuple[list[list[str]], list[float]]:
        """The conditions that each pass is without, the unconditional one last if it is needed, and the others' scales.

        A condition that is not given is left out of no pass: it is null in all of them.
        """
        scale = self.guidance_scale
        by_key = scale if isinstance(scale, Mapping) else {self.guided: scale}
        by_names = {(key,) if isinstance(key, str) else tuple(key): value for key, value in by_key.items()}
        scaled = list(dict.fromkeys(name for names in by_names for name in names))
        unknown = set(scaled) - set(self.guided)
        if unknown:
            raise ValueError(f"guidance_scale names {sorted(unknown)}, but only {sorted(self.guided)} are guided")

        if any(isinstance(value, str) for value in by_names.values()):
            raise TypeError(f"guidance_scale ({scale!r}) must be a number, or numbers by name")

        named = [name for name in scaled if name in given or negative_of(name) in given]
        counting = {names: value for names, value in by_names.items() if value != 0 and set(named) & set(names)}
        left_out = [[name for name in named if name not in names] for names in counting]
        scales = list(counting.values())
        return (left_out if self.is_plain(scales) else [*left_out, named]), scales


def without(names: Sequence[str], opposed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What takes the place of some conditions and of their masks."""
    return {key: opposed[key] for name in names for key in (name, mask_of(name)) if key in opposed}
