"""Components for building diffusion models, and for training them end to end. The names are in ``__init__.pyi``."""

import os

import lazy_loader

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
_files = set(os.listdir(__path__[0]))
__all__ = [name for name in _names if name not in _files]  # no folder: `import *` would hide a caller's `data`
