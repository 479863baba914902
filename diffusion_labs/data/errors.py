"""The errors of everything that reads data."""


class DataError(ValueError):
    """Data that cannot be used. The message names the file, what is wrong, and what to do."""


class UnavailableError(DataError):
    """Data that cannot be reached now. Never skipped: another process, or the next reading, may find it."""
