"""The machine, the versions and the moment of a measurement."""

import datetime
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "diffusion-labs", "torchmultimodal-nightly", "diffusers", "denoising-diffusion-pytorch")
GEMM_SIDE = 2048


def prepare(threads: int) -> None:
    """Set the threads of torch, and the seed."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)


def described() -> dict[str, Any]:
    """Plain data about where and when."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[2], 1),  # of 15 minutes, with what is measured
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in PACKAGES},
    }


def version_of(package: str) -> str:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The name of the processor, and its widest vectors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def gemm() -> Callable[[], None]:
    """A product of two matrices in float32, as large as is fast: what the machine can do at the most."""
    a, b = torch.randn(2, GEMM_SIDE, GEMM_SIDE)
    out = torch.empty(GEMM_SIDE, GEMM_SIDE)

    def product() -> None:
        torch.mm(a, b, out=out)

    return product


def gemm_flops() -> float:
    """FLOPs of ``gemm``."""
    return 2.0 * GEMM_SIDE**3
