"""The grid of models that were distilled to a few steps."""

import torch
from torch import Tensor

from diffusion_labs.schedules.schedule import Schedule


def distilled(schedule: Schedule, steps: int, original_steps: int = 50) -> Tensor:
    """Evenly chosen out of the times that a consistency model was distilled at: 999, 759, 499, 259.

    Those are ``original_steps`` times, evenly spaced back from clean data by whole steps of the
    schedule: 19, 39, ..., 999 (Latent Consistency Models, arXiv 2310.04378, Sec. 4.3, with skipping step 20).

    Args:
        schedule: the process.
        steps: the number of times to choose.
        original_steps: the number of times to choose from.
    """
    stride = (schedule.terminal - schedule.clean) / original_steps
    stride -= stride % schedule.resolution if schedule.resolution else 0
    if steps > original_steps or stride == 0:
        raise ValueError(
            f"original_steps ({original_steps}) must be at least the steps ({steps}) and at most those of the schedule"
        )
    index = original_steps - torch.arange(steps, device="cpu") * original_steps // steps
    return schedule.snap(schedule.clean + stride * index.double())
