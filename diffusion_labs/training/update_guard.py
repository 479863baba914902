"""What keeps a bad batch out of the weights."""

import math
from collections import deque
from statistics import median
from typing import Any

WINDOW = 100  # accepted updates that the next one is compared with
ENOUGH = 20  # of them are needed to compare


class UpdateGuard:
    """Refuses updates whose loss or gradient norm is not finite, or far above those of the last ones.

    A value v is far above if ``v - m > factor * max(|m|, d)``, where m is the median of the last 100 accepted values
    and d the median of their distances from it.

    Attributes:
        skipped: updates refused so far.
        in_a_row: those since the last accepted one.
    """

    def __init__(self) -> None:
        self.recent: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in ("loss", "gradient_norm")}
        self.skipped = 0
        self.in_a_row = 0

    def accepts(self, loss: float, gradient_norm: float, factor: float) -> bool:
        """Whether the update may be made; it is counted, and remembered if so."""
        values = {"loss": loss, "gradient_norm": gradient_norm}
        if any(_far_above(value, self.recent[name], factor) for name, value in values.items()):
            self.skipped += 1
            self.in_a_row += 1
            return False
        for name, value in values.items():
            self.recent[name].append(value)
        self.in_a_row = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """The counts and the last values."""
        recent = {name: list(values) for name, values in self.recent.items()}
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, **recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved counts and values."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        for name, values in self.recent.items():
            values.clear()
            values.extend(state[name])


def _far_above(value: float, recent: deque[float], factor: float) -> bool:
    if not math.isfinite(value):
        return True
    if len(recent) < ENOUGH:
        return False
    middle = median(recent)
    spread = median(abs(other - middle) for other in recent)
    return value - middle > factor * max(abs(middle), spread)
