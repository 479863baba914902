"""Guidance by a pass without self-attention."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.combinations import Combine, linear
from diffusion_labs.adapters.guidance import guide, split, within
from diffusion_labs.adapters.guidance_interval import GuidanceInterval
from diffusion_labs.conditioning import ConditionalInputs, without_guidance
from diffusion_labs.keeping import kept, stepped
from diffusion_labs.output import DiffusionOutput


class PerturbedAttentionGuidance(Adapter):
    """Guides away from the network with identity for some self-attention maps (PAG, arXiv 2403.17377).

    ``p + guidance_scale * (y - p)``, where p is the perturbed prediction: structure that attention makes is
    exaggerated, also without conditions. (The paper's s is ``guidance_scale - 1``.) Both passes are one call with twice
    the batch; a learned variance is that of the unperturbed half. In train mode the model is called as it is.

    The network is told by the conditional input ``"identity_attention"``, bool ``[b, n]``: which of its n attention
    blocks, named by its ``attention_blocks``, are the identity for each sample.

    Args:
        model: network or adapter with ``attention_blocks``, such as ``adm_unet``.
        guidance_scale: 1 is no guidance, and one pass. May be set at any time.
        blocks: the blocks to perturb, by their names or the beginnings of them: ``"middle"``, ``"encoder.3"``.
        combine: see ``CFGuidance``.
        interval: see ``CFGuidance``.

    Raises:
        ValueError: if the model has no such block.

    Example:
        >>> model = PerturbedAttentionGuidance(network, guidance_scale=4.0, blocks=["middle"])
    """

    perturbed: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        guidance_scale: float = 1.0,
        blocks: Collection[str] = ("middle",),
        combine: Combine = linear,
        interval: GuidanceInterval | None = None,
    ) -> None:
        super().__init__(model)
        names = self.attention_blocks
        if not names:
            raise ValueError(
                f"perturbed-attention guidance needs a network with attention_blocks, but {type(model).__name__} "
                "names none; use one that takes 'identity_attention', such as adm_unet with attention"
            )
        for block in blocks:
            if not any(begins(name, block) for name in names):
                raise ValueError(f"blocks has {block!r}, but the attention blocks of the model are {list(names)}")
        self.blocks = tuple(blocks)
        perturbed = [any(begins(name, block) for block in blocks) for name in names]
        self.register_buffer("perturbed", torch.tensor(perturbed), persistent=False)
        self.guidance_scale = guidance_scale
        self.combine = combine
        self.interval = interval

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule`` and the class."""
        conditions = self.check_conditions(conditional_inputs, x)
        if self.training or self.guidance_scale == 1:
            return self.model(x, timestep, conditions)
        return within(self.interval, self.guided_output, self.model, x, timestep, conditions)

    def unguided(self) -> nn.Module:
        """The model inside."""
        return without_guidance(self.model)

    def guided_output(
        self, x: Tensor, timestep: Tensor, conditions: ConditionalInputs, plain: DiffusionOutput | None = None
    ) -> DiffusionOutput:
        """The output of both passes, in one call, combined; the unperturbed one may be given."""
        if plain is not None:
            _, changed = self.passes(conditions, len(x))
            perturbed, unperturbed = self.model(x, timestep, changed), plain
        else:
            both = kept(self.both, conditions, len(x))
            output = self.model(torch.cat([x, x]), stepped(self.repeated, timestep, 2), both)
            unperturbed, perturbed = split(output, 2)
        return guide(self.combine, perturbed, [unperturbed], [self.guidance_scale], x, timestep)

    def passes(self, conditions: ConditionalInputs, batch: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The conditions of the unperturbed and of the perturbed pass."""
        own = conditions.get("identity_attention", self.perturbed.new_zeros(batch, len(self.perturbed)))
        return {**conditions, "identity_attention": own}, {**conditions, "identity_attention": own | self.perturbed}

    def both(self, conditions: ConditionalInputs, batch: int) -> dict[str, Tensor]:
        """Those of both passes, one below the other."""
        unperturbed, perturbed = self.passes(conditions, batch)
        return {name: torch.cat([value, perturbed[name]]) for name, value in unperturbed.items()}


def begins(name: str, block: str) -> bool:
    """Whether the name of a block is ``block``, or of a part of it: ``"middle.1"`` of ``"middle"``."""
    return name == block or name.startswith(f"{block}.")
