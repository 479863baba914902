"""Noise levels that were optimised for a data set and a network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_labs.samplers.grids import between_ends
from diffusion_labs.schedules.schedule import Schedule

# sigma / alpha of ten steps, as the authors published them
AYS_STABLE_DIFFUSION = (
    14.6146412293,
    6.4745760956,
    3.8636745985,
    2.6946151520,
    1.8841921177,
    1.3943805092,
    0.9642583904,
    0.6523686016,
    0.3977456272,
    0.1515232662,
    0.0291671582,
)
AYS_STABLE_DIFFUSION_XL = (
    14.6146412293,
    6.3184485287,
    3.7681790315,
    2.1811480769,
    1.3405244945,
    0.8620721141,
    0.5550693289,
    0.3798540708,
    0.2332364134,
    0.1114188177,
    0.0291671582,
)
AYS_STABLE_VIDEO_DIFFUSION = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


def align_your_steps(schedule: Schedule, steps: int, sigmas: Sequence[float] = AYS_STABLE_DIFFUSION) -> Tensor:
    """Noise levels from a table, interpolated evenly in ``log(sigma / alpha)`` (Align Your Steps, arXiv 2404.14507).

    The schedule's own last and first noise level take the place of the table's ends, and what is not
    between them is left out, so any table serves any schedule. Another table:
    ``partial(align_your_steps, sigmas=AYS_STABLE_DIFFUSION_XL)``.

    Args:
        schedule: the process.
        steps: number of calls.
        sigmas: ``sigma / alpha``, strictly decreasing, of one call more than was optimised for: after the
            last call comes clean data.
    """
    table = torch.tensor(list(sigmas), dtype=torch.float64, device="cpu")
    if len(table) < 2 or not bool((table.diff() < 0).all()) or table[-1] <= 0:
        raise ValueError(f"sigmas must be at least two strictly decreasing positive noise levels; got {sigmas}")

    def space(low: Tensor, high: Tensor, count: int) -> Tensor:
        inner = -2 * table[1:-1].log()
        knots = torch.cat([low[None], inner[(inner > low) & (inner < high)], high[None]])
        place = torch.arange(count, dtype=torch.float64, device="cpu") * (len(knots) - 1) / max(1, count)
        below = place.long()
        return torch.lerp(knots[below], knots[below + 1], place - below)

    return between_ends(schedule, steps, space)
