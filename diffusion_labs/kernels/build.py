"""Compiles the kernels when they are first needed, and keeps the result for later processes."""

import ctypes
import functools
import hashlib
import logging
import os
import re
import shlex
import shutil
import stat
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
DIGEST = 32  # bytes
MAPS = Path("/proc/self/maps")  # the libraries of this process
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
    """The compiled kernels; ``None`` where there are none, with one warning if the processor is not the reason."""
    if not sys.platform.startswith("linux") or torch.backends.cpu.get_cpu_capability() not in INSTRUCTIONS:
        return None
    reasons = []
    for folder in (cache_folder, temporary_folder):
        try:
            return ctypes.CDLL(str(compiled(folder())))
        except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
            reasons.append(str(getattr(error, "stderr", None) or error))
    warnings.warn(
        f"the kernels in {Path(__file__).parent} could not be compiled or loaded, so PyTorch's own are used, which are "
        f"slower; set {SWITCH}=0 to do without this warning. The reason: {'; '.join(dict.fromkeys(reasons))}",
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
    values = [value if value is None or isinstance(value, int | float) else address(value) for value in arguments]
    function(*values, torch.get_num_threads())


def address(tensor: Tensor) -> int:
    """That of the first element.

    Raises:
        ValueError: if compiled functions cannot read it.
    """
    first = tensor.data_ptr()
    if tensor.dtype is not torch.float32 or not tensor.is_cpu or (first == 0 and tensor.numel() > 0):
        raise ValueError(f"the kernels are for tensors of float32 in memory, not {tensor.dtype} on {tensor.device}")
    return first


def foreign(value: Tensor | int | float | None) -> type:
    """The type of an argument of a compiled function."""
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p
    return ctypes.c_double if isinstance(value, float) else ctypes.c_int64


def cache_folder() -> Path:
    """Where compiled kernels are kept for this user: ``$XDG_CACHE_HOME/diffusion_labs``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion_labs"


def temporary_folder() -> Path:
    """A folder of this user's alone among the temporary files, for where there is no home, or none to write or load.

    Raises:
        OSError: if others can write it, and with it the code that is loaded.
    """
    folder = Path(tempfile.gettempdir()) / f"diffusion_labs-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of this user's alone (mode 0700)")
    return folder


def compiled(folder: Path) -> Path:
    """The shared library for these sources, flags, torch and compiler, from the folder or else compiled into it.

    Several processes may do so at once: each compiles in a folder of its own, and then moves the file, which is atomic.
    A file that is not as it was written, after a crash or on a full disk, is compiled again.

    Raises:
        OSError: if there is no compiler, or the folder cannot be written.
        ValueError: if the quotes in ``CXX`` do not match.
        subprocess.CalledProcessError: if the compiler fails.
    """
    command, *options = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    compiler = shutil.which(command)
    if compiler is None:
        raise OSError(f"there is no {command}: install g++, or name another compiler in CXX")
    here = Path(__file__).parent
    flags = (*options, *FLAGS, *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ()))
    digest = hashlib.sha256(repr((flags, torch.__version__, openmp(), compiler)).encode())
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    path = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    if intact(path):
        return path

    logger.info("compiling kernels into %s: some seconds, once", path)
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        units = [name for name in SOURCES if name.endswith(".cpp")]
        for unit in units:
            run(compiler, *flags, "-c", str(here / unit), "-o", f"{scratch}/{unit}.o")
        # Not -fopenmp: the threads must be torch's, whatever its OpenMP is called
        objects = [f"{scratch}/{unit}.o" for unit in units]
        run(compiler, *options, "-shared", *objects, openmp(), "-o", f"{scratch}/kernels.so")
        content = Path(scratch, "kernels.so").read_bytes()
        with open(f"{scratch}/whole.so", "wb") as file:
            file.write(content + hashlib.sha256(content).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    logger.info("compiled kernels in %.1f s", time.perf_counter() - began)
    return path


def intact(path: Path) -> bool:
    """Whether the file is there as it was written: it ends with the digest of what comes before.

    Half a library is not always an error of the loader: it may be read where it is missing, which ends the process.
    """
    content = path.read_bytes() if path.exists() else b""
    return content[-DIGEST:] == hashlib.sha256(content[:-DIGEST]).digest()


def run(*command: str) -> None:
    """Run a command quietly.

    Raises:
        subprocess.CalledProcessError: if it fails; with what it printed.
    """
    subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")


def openmp() -> str:
    """The OpenMP library that torch has loaded, as an argument of the linker.

    With another one, such as scikit-learn's own, there would be two pools of threads, each of which spins while the
    other works.
    """
    loaded = re.findall(r"/.*/lib(?:gomp|iomp5|omp)[^/\n]*\.so[.\d]*", os.fsdecode(MAPS.read_bytes()))
    with_torch = [path for path in loaded if path.startswith(str(Path(torch.__file__).parent))]
    return next(iter([*with_torch, *loaded]), "-lgomp")
