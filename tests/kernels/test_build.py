"""When and how the kernels are compiled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_labs.kernels.build import INSTRUCTIONS, compiled

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("g++") is None, reason="needs Linux and g++"
)
needs_avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in INSTRUCTIONS, reason="needs a processor with AVX2"
)
CALL = """
import torch
from diffusion_labs.kernels import convolution_3x3
print(float(convolution_3x3(torch.ones(1, 16, 16, 16), torch.ones(16, 16, 3, 3), None).sum()))
"""
EXPECTED = 16.0 * 16 * 46 * 46  # 3x3 windows in a square of side 16 with a border: (3 * 16 - 2)^2 products per channel


def start(code: str, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=pipe, stderr=pipe, text=True)


def folder(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "diffusion_labs").glob("*")) if (tmp_path / "diffusion_labs").exists() else []


@needs_avx2
@pytest.mark.slow
def test_several_processes_compile_at_once_and_quietly(tmp_path: Path) -> None:
    processes = [start(CALL, DIFFUSION_LABS_KERNELS="1", XDG_CACHE_HOME=str(tmp_path)) for _ in range(3)]
    for process in processes:
        out, err = process.communicate()
        assert (float(out), err) == (pytest.approx(EXPECTED), "")
    (kept,) = folder(tmp_path)
    assert kept.suffix == ".so"


def test_nothing_is_compiled_by_an_import_or_where_the_switch_is_off(tmp_path: Path) -> None:
    network = "import diffusion_labs as dl; dl.adm_unet(model_channels=32, channel_mult=(1,))"
    for code, switch in ((network, "1"), (CALL, "0")):
        _, err = start(code, DIFFUSION_LABS_KERNELS=switch, XDG_CACHE_HOME=str(tmp_path)).communicate()
        assert err == ""
    assert folder(tmp_path) == []


@needs_avx2
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_there_is_one_warning_and_pytorch_computes(compiler: str, tmp_path: Path) -> None:
    environment = {"DIFFUSION_LABS_KERNELS": "1", "XDG_CACHE_HOME": str(tmp_path), "CXX": compiler}
    out, err = start(CALL + CALL, **environment).communicate()
    assert [float(line) for line in out.split()] == [EXPECTED, EXPECTED]
    assert err.count("could not be compiled") == 1


def test_compiled_kernels_are_kept(tmp_path: Path) -> None:
    path = compiled(tmp_path)
    before = path.stat().st_mtime_ns
    assert compiled(tmp_path) == path
    assert path.stat().st_mtime_ns == before


def test_there_is_one_pool_of_threads() -> None:
    """The kernels take the OpenMP that torch has loaded; in a process of its own, as other packages bring theirs."""
    code = (
        "from pathlib import Path; from diffusion_labs.kernels.build import library; import sys\n"
        "if library() is None: sys.exit(3)\n"
        "lines = Path('/proc/self/maps').read_text().splitlines()\n"
        "paths = {Path(line.split()[-1]) for line in lines if 'omp' in line}\n"
        "print(len({path for path in paths if path.name.startswith(('libgomp', 'libomp', 'libiomp'))}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "DIFFUSION_LABS_KERNELS": "1"}, capture_output=True, text=True
    )
    if run.returncode == 3:
        pytest.skip("needs AVX2")
    assert run.stdout.strip() == "1", run.stderr
