"""Guidance by a weaker network."""

from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.combinations import Combine, linear
from diffusion_labs.adapters.guidance import guide, within
from diffusion_labs.adapters.guidance_interval import GuidanceInterval
from diffusion_labs.conditioning import ConditionalInputs, without_guidance
from diffusion_labs.output import DiffusionOutput


class AutoGuidance(Adapter):
    """Guides away from a weaker version of the network (arXiv 2406.02507).

    ``weak + guidance_scale * (strong - weak)``, both with the same conditions: better images without less variety. The
    weaker one is smaller, or trained for less time, on the same data. A learned variance is the stronger's.

    Train mode trains ``model`` alone: the weaker one's parameters are frozen here, once and for all, and it stays in
    eval mode.

    Args:
        model: network or adapter.
        weaker: called as the model is; it must understand the same conditions.
        guidance_scale: 1 is the model itself, and one call; larger is further from the weaker one. May be set at any
            time.
        combine: see ``CFGuidance``.
        interval: see ``CFGuidance``.

    Raises:
        ValueError: if the two share parameters.

    Example:
        >>> model = AutoGuidance(network, smaller_network, guidance_scale=2.0)
    """

    def __init__(
        self,
        model: nn.Module,
        weaker: nn.Module,
        *,
        guidance_scale: float = 1.0,
        combine: Combine = linear,
        interval: GuidanceInterval | None = None,
    ) -> None:
        super().__init__(model)
        if set(model.parameters()) & set(weaker.parameters()):
            raise ValueError(
                "weaker shares parameters with model, which freezing would stop from learning; give a copy"
            )
        self.weaker = weaker.requires_grad_(False)
        self.guidance_scale = guidance_scale
        self.combine = combine
        self.interval = interval
        self.weaker.eval()

    def train(self, mode: bool = True) -> "AutoGuidance":
        """Train mode for all but the weaker network."""
        super().train(mode)
        self.weaker.eval()
        return self

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
        """The output of both networks, combined; the stronger one's may be given."""
        strong = self.model(x, timestep, conditions) if plain is None else plain
        weak = self.weaker(x, timestep, conditions)
        return guide(self.combine, weak, [strong], [self.guidance_scale], x, timestep)
