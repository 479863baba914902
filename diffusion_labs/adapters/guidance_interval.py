"""The noise levels at which guidance acts."""

import math

from jaxtyping import Bool, Shaped
from torch import Tensor, nn

from diffusion_labs.schedules.schedule import Schedule


class GuidanceInterval(nn.Module):
    """Where ``low < sigma / alpha <= high`` (arXiv 2404.07724): guidance harms at high noise, and is idle at low.

    ``sigma / alpha`` is EDM's sigma, the unit of the paper. Outside of the interval an adapter makes one pass of the
    batch, without guidance.

    In eval mode all samples of a step have one time, and the decision is a branch on it: on a GPU the host waits for
    it once a call. Where the adapter itself is compiled, or in an exported program, it is a branch of the graph: one
    pass with all conditions at every level, and the others inside alone. With ``torch.compile(dynamic=True)``, where a
    branch may not read the numbers that networks have, all passes are made at every level.

    Args:
        schedule: of the times that the adapter gets.
        low: of ``sigma / alpha``; 0 is down to clean data.
        high: of ``sigma / alpha``; infinity is up to pure noise.

    Raises:
        ValueError: unless ``0 <= low < high``.
    """

    needs = frozenset({"time"})

    def __init__(self, schedule: Schedule, *, low: float = 0.0, high: float = math.inf) -> None:
        super().__init__()
        if not 0 <= low < high:
            raise ValueError(f"low ({low}) and high ({high}) are ratios sigma / alpha; they need 0 <= low < high")
        self.schedule = schedule
        self.low = low
        self.high = high

    def forward(self, timestep: Shaped[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which times are inside."""
        ratio = self.schedule.sigma(timestep) / self.schedule.alpha(timestep)
        return (self.low < ratio) & (ratio <= self.high)
