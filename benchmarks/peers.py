"""Other libraries' solvers, for the tests and the solver report: the modules that hold them, and nothing more.

``k_diffusion`` imports all of its parts, which need packages that are not installed here, and only for training;
azula imports no more than it uses. Both are installed without their dependencies by ``scripts/bootstrap.py``.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from types import ModuleType


def k_diffusion_sampling() -> ModuleType:
    """k-diffusion's ``sampling`` module, without the rest of its package.

    The package's ``__init__`` is not run, and torchvision, which its ``utils`` imports for pictures, is an empty module
    while that is loaded.

    Raises:
        ImportError: if k-diffusion, or what its solvers need, is not installed.
    """
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    found = importlib.util.find_spec("k_diffusion")
    if found is None or found.origin is None:
        raise ImportError("k-diffusion is not installed; run `make install`")

    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(Path(found.origin).parent)]
    stubs = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
    stubs["torchvision.transforms"].functional = None  # type: ignore[attr-defined]
    missing = [name for name in stubs if name not in sys.modules]
    sys.modules["k_diffusion"] = package
    sys.modules.update({name: stubs[name] for name in missing})
    try:
        return importlib.import_module("k_diffusion.sampling")
    except ImportError:
        del sys.modules["k_diffusion"]
        raise
    finally:
        for name in missing:
            del sys.modules[name]
