"""The loss of Improved DDPM."""

from collections.abc import Mapping

from torch import Tensor, nn

from diffusion_labs.losses.simple_loss import SimpleLoss
from diffusion_labs.losses.vlb_loss import VLBLoss
from diffusion_labs.output import DiffusionOutput


class DiffusionHybridLoss(nn.Module):
    """``L_simple + weight * L_vlb`` (Improved DDPM, arXiv 2102.09672, Eq. 16).

    The mean of the bound's term is detached: it trains the variance and cannot move the prediction.
    L_vlb is the sum over the T steps, so it is estimated by T times the term at a random step.

    Args:
        simple: loss of the prediction.
        vlb: term of the bound.
        weight: weight of the whole bound; the paper's 0.001, which is 1 for the mean term if T = 1000.
    """

    def __init__(self, simple: SimpleLoss, vlb: VLBLoss, *, weight: float = 0.001) -> None:
        super().__init__()
        self.simple = simple
        self.vlb = vlb
        schedule = vlb.schedule
        self.weight = weight
        self.steps = round((schedule.terminal - schedule.first) / schedule.resolution) + 1

    def forward(self, output: DiffusionOutput, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch: a scalar. Raises as ``SimpleLoss`` and ``VLBLoss`` do."""
        mean = None if output.mean is None else output.mean.detach()
        return self.simple(output, batch) + self.weight * self.steps * self.vlb(output._replace(mean=mean), batch)
