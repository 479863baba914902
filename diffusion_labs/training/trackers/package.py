"""Packages of trackers, imported when they are used."""

import importlib
from types import ModuleType

PROJECT = "diffusion-labs"  # to which runs belong, if no other is given


def tracking_package(name: str, distribution: str) -> ModuleType:
    """Import the package of a tracker.

    Args:
        name: of the module.
        distribution: what is installed for it.

    Raises:
        ImportError: that says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"tracking by {name} needs the package {distribution}; install it with: pip install {distribution}; or all "
            "trackers with: pip install 'diffusion-labs[track]'"
        ) from error
