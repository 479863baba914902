"""What happens to samples that are damaged."""

import warnings

from diffusion_labs.data.errors import DataError, UnavailableError

SHARE, ENOUGH = 0.1, 200  # as many may be damaged, of at least so many


class Damage:
    """Ends the reading at the first damaged sample, or skips and counts them until they are too many.

    Args:
        on_error: ``"raise"``, or ``"skip"``: warn, and raise when more than a tenth of what was seen is damaged.
        limit: with ``"skip"``, raise instead when more than so many are damaged.

    Attributes:
        seen: samples seen, by this process.
        skipped: how many of them are damaged.
    """

    def __init__(self, on_error: str, limit: int | None = None) -> None:
        check_policy(on_error)
        self.on_error = on_error
        self.limit = limit
        self.seen = 0
        self.skipped = 0

    def good(self) -> None:
        """Count a sample that is whole."""
        self.seen += 1

    def bad(self, error: DataError) -> None:
        """Skip a damaged sample, or raise its error."""
        if self.on_error == "raise" or isinstance(error, UnavailableError):
            raise error
        self.seen += 1
        self.skipped += 1
        count = f"{self.skipped} of {self.seen}"
        warnings.warn(f"skipped {count} samples so far: {error}", stacklevel=3)
        if self.limit is None:
            too_many, rule = self.seen >= ENOUGH and self.skipped > SHARE * self.seen, f"{SHARE:.0%}"
        else:
            too_many, rule = self.skipped > self.limit, str(self.limit)
        if too_many:
            raise DataError(f"{count} samples are damaged, more than {rule}; repair the data. The last: {error}")


def check_policy(on_error: str) -> None:
    """Raise a ``DataError`` unless there is such a policy."""
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error is {on_error!r}; choose 'raise' or 'skip'")
