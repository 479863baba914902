"""Compiles the kernels when they are first needed, and keeps the result for later processes."""

import ctypes
import functools
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

from diffusion_labs.compilation import constant

SOURCES = (
    *("vector.h", "exponential.h", "product.h", "memory.h"),
    *("winograd.cpp", "pointwise.cpp", "attention.cpp", "norm.cpp", "resampling.cpp"),
)
FLAGS = ("-std=c++17", "-O3", "-mavx2", "-mfma", "-fPIC", "-fopenmp", "-Wno-ignored-attributes")
INSTRUCTIONS = {"AVX2": (), "AVX512": ("-mavx512f", "-mavx512dq")}  # more flags, by what torch says of the processor
SWITCH = "DIFFUSION_LABS_KERNELS"

logger = logging.getLogger(__name__)


@constant
def available() -> bool:
    """Whether the kernels can be used here; the first call compiles them.

    They are written for processors with AVX2 or AVX-512. The environment variable ``DIFFUSION_LABS_KERNELS=0`` switches
    them off.
    """
    return os.environ.get(SWITCH, "1") != "0" and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None``, with one warning if it is for want of a compiler, where there are none."""
    if not sys.platform.startswith("linux") or torch.backends.cpu.get_cpu_capability() not in INSTRUCTIONS:
        return None
    try:
        return ctypes.CDLL(str(compiled(cache_folder())))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        warnings.warn(
            f"the kernels in {Path(__file__).parent} could not be compiled, so PyTorch's own are used, which are "
            f"slower; install g++, or set {SWITCH}=0 to do without this warning. The reason: {reason}",
            stacklevel=2,
        )
        return None


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a compiled function on all threads of torch.

    Tensors are passed as the address of their first element, integers with 64 bits, and last the number of threads.
    """
    kernels = library()
    if kernels is None:
        raise RuntimeError(
            f"{name} needs the compiled kernels, which are not available here; this program was compiled by PyTorch "
            f"where they were: compile it again, here or with {SWITCH}=0"
        )
    function = getattr(kernels, name)
    if function.argtypes is None:
        function.argtypes = [*map(foreign, arguments), ctypes.c_int32]
    values = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
    function(*values, torch.get_num_threads())


def foreign(value: Tensor | int | float | None) -> type:
    """The type of an argument of a compiled function."""
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p
    return ctypes.c_double if isinstance(value, float) else ctypes.c_int64


def cache_folder() -> Path:
    """Where compiled kernels are kept for this user: ``$XDG_CACHE_HOME/diffusion_labs``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion_labs"


def compiled(folder: Path) -> Path:
    """The shared library for these sources, flags, torch and compiler, from the folder or else compiled into it.

    Several processes may do so at once: each compiles in a folder of its own, and then moves the file, which is atomic.

    Raises:
        OSError: if there is no compiler, or the folder cannot be written.
        subprocess.CalledProcessError: if the compiler fails.
    """
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        raise OSError("there is no g++")
    here, flags = Path(__file__).parent, FLAGS + INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ())
    digest = hashlib.sha256(repr((flags, torch.__version__, openmp(), compiler)).encode())
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    path = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path

    logger.info("compiling kernels into %s: some seconds, once", path)
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        units = [name for name in SOURCES if name.endswith(".cpp")]
        for unit in units:
            run(compiler, *flags, "-c", str(here / unit), "-o", f"{scratch}/{unit}.o")
        # Not -fopenmp: the threads must be torch's, whatever its OpenMP is called
        run(compiler, "-shared", *(f"{scratch}/{unit}.o" for unit in units), openmp(), "-o", f"{scratch}/kernels.so")
        os.replace(f"{scratch}/kernels.so", path)
    logger.info("compiled kernels in %.1f s", time.perf_counter() - began)
    return path


def run(*command: str) -> None:
    """Run a command quietly.

    Raises:
        subprocess.CalledProcessError: if it fails; with what it printed.
    """
    subprocess.run(command, check=True, capture_output=True, text=True)


def openmp() -> str:
    """The OpenMP library that torch has loaded, as an argument of the linker.

    With another one there would be two pools of threads, each of which spins while the other works.
    """
    loaded = re.findall(r"\S*/lib(?:gomp|iomp5|omp)\S*\.so\S*", Path("/proc/self/maps").read_text())
    return loaded[0] if loaded else "-lgomp"
