"""Pictures during training are short here."""

from tests.short_previews import short_previews  # noqa: F401  (a fixture that is used by itself)
