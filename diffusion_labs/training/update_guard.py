"""What keeps a bad batch out of the weights."""

from typing import Any

import torch
from torch import Tensor

WINDOW = 100  # accepted updates that the next one is compared with
ENOUGH = 20  # of them are needed to compare
NAMES = ("loss", "gradient_norm")


class UpdateGuard:
    """Refuses updates whose loss or gradient norm is not finite, or far above those of the last ones.

    A value v is far above if ``v - m > factor * max(|m|, d)``, where m is the median of the last 100 accepted values
    and d the median of their distances from it. It is decided where the values are, and no host waits for it.

    Attributes:
        recent: the last accepted values of both, ``[2, 100]``; NaN where there is none yet.
        accepted: how many there were, from the run's first or from what was loaded.
        skipped: updates refused so far, as far as the loop knows.
        in_a_row: those since the last accepted one.
    """

    def __init__(self) -> None:
        self.recent = torch.full((len(NAMES), WINDOW), float("nan"))
        self.accepted = torch.zeros((), dtype=torch.long)
        self.skipped = 0
        self.in_a_row = 0

    def refuses(self, loss: Tensor, gradient_norm: Tensor, factor: float) -> Tensor:
        """Whether the update must not be made, a bool; if it may, its values are remembered."""
        device = loss.device
        self.recent, self.accepted = self.recent.to(device), self.accepted.to(device)
        values = torch.stack([loss.to(self.recent.dtype), gradient_norm.to(self.recent.dtype)])

        known = self.accepted.clamp(max=WINDOW)
        middle = _median(self.recent, known)
        spread = _median((self.recent - middle[:, None]).abs(), known)
        far_above = (known >= ENOUGH) & (values - middle > factor * torch.maximum(middle.abs(), spread))
        refused = (far_above | ~values.isfinite()).any()

        place = torch.arange(WINDOW, device=device) == self.accepted % WINDOW
        self.recent = torch.where(place & ~refused, values[:, None], self.recent)
        self.accepted = self.accepted + ~refused
        return refused

    def count(self, refused: bool) -> None:
        """Note what became of an update."""
        self.skipped += refused
        self.in_a_row = self.in_a_row + 1 if refused else 0

    def state_dict(self) -> dict[str, Any]:
        """The counts and the last values, oldest first."""
        accepted = int(self.accepted)
        in_order = self.recent.roll(-accepted, dims=1) if accepted > WINDOW else self.recent[:, :accepted]
        recent = dict(zip(NAMES, in_order.tolist(), strict=True))
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, **recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved counts and values."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        saved = torch.tensor([state[name] for name in NAMES])
        self.recent = torch.full((len(NAMES), WINDOW), float("nan"))
        self.recent[:, : saved.shape[1]] = saved
        self.accepted = torch.tensor(saved.shape[1])


def _median(values: Tensor, count: Tensor) -> Tensor:
    """The median of each row's numbers; the others, of which there are all but ``count``, are NaN."""
    ordered = values.sort().values  # NaN last
    middle = torch.stack([(count - 1).clamp(min=0) // 2, count // 2]).clamp(max=values.shape[1] - 1)
    return ordered.index_select(1, middle).mean(1)
