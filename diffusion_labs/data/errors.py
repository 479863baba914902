"""The error of everything that reads data."""


class DataError(ValueError):
    """Data that cannot be used. The message names the file, what is wrong, and what to do."""
