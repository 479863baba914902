"""Components for building diffusion models, and for training them end to end. The names are in ``__init__.pyi``."""

import os

import lazy_loader

_attribute, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
_files = set(os.listdir(__path__[0]))
__all__ = [name for name in _names if name not in _files]  # no folder: `import *` would hide a caller's `data`


def __getattr__(name: str) -> object:
    try:
        return _attribute(name)
    except AttributeError:
        if name in _names or name.startswith("_"):
            raise
        from diffusion_labs.spelling import nearest

        near = nearest(name, _names)
        hint = f"; did you mean '{near}'?" if near else ""
        raise AttributeError(f"diffusion_labs has no '{name}'{hint}") from None
