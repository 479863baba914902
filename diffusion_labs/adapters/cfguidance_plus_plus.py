"""Classifier-free guidance of the data alone."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffusion_labs.adapters.cfguidance import CFGuidance
from diffusion_labs.adapters.guidance import renoising
from diffusion_labs.output import DiffusionOutput


class CFGuidancePlusPlus(CFGuidance):
    """CFG++ (arXiv 2406.08070): guides the clean data, and noises it again with the unconditional noise.

    DDIM becomes ``x_s = alpha_s x0_guided + sigma_s eps_u``, with ``x0_guided`` from ``u + guidance_scale (c - u)``:
    the path stays where noisy data is, so scales are in [0, 1], the paper's lambda. Every sampler steps in x0 and eps,
    and so is right with it. At scale 1 there are two passes still, as the noise is not the conditional one.

    Arguments and train mode are those of ``CFGuidance``.

    Example:
        >>> model = CFGuidancePlusPlus(network, dropout={"class": 0.1}, guidance_scale=0.6)
    """

    def is_plain(self, scales: Sequence[float]) -> bool:
        """Never: the noise is that of the unconditional pass."""
        return False

    def outputs(self, x: Tensor, timestep: Tensor, inputs: Sequence[Mapping[str, Tensor]]) -> Sequence[DiffusionOutput]:
        """See ``CFGuidance``; each with the prediction for its noise, so that there is one at every level."""
        return [
            output._replace(renoise_prediction=renoising(output)) for output in super().outputs(x, timestep, inputs)
        ]

    def guide(
        self,
        u: DiffusionOutput,
        conditionals: Sequence[DiffusionOutput],
        scales: Sequence[float],
        x: Tensor,
        timestep: Tensor,
    ) -> DiffusionOutput:
        """See ``CFGuidance``."""
        return super().guide(u, conditionals, scales, x, timestep)._replace(renoise_prediction=renoising(u))
