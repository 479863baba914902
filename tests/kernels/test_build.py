"""When and how the kernels are compiled."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_labs.kernels.build import INSTRUCTIONS, compiled, intact, openmp, temporary_folder

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
    assert (f"there is no {compiler}" in err) == (compiler == "no-such-compiler")


def test_compiled_kernels_are_kept(tmp_path: Path) -> None:
    path = compiled(tmp_path)
    before = path.stat().st_mtime_ns
    assert compiled(tmp_path) == path
    assert path.stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of caches with compiled kernels."""
    path = tmp_path_factory.mktemp("home")
    compiled(path / "diffusion_labs")
    return path


def copied(home: Path, tmp_path: Path) -> Path:
    """A copy of the compiled kernels of a home, in another."""
    (kept,) = folder(home)
    (tmp_path / "diffusion_labs").mkdir()
    return Path(shutil.copy(kept, tmp_path / "diffusion_labs"))


@needs_avx2
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_what_is_left_of_a_library_is_not_loaded(share: float, home: Path, tmp_path: Path) -> None:
    """A crash, or a full disk, may leave any part of a file."""
    library = copied(home, tmp_path)
    assert intact(library)
    os.truncate(library, int(share * library.stat().st_size))
    assert not intact(library)


@needs_avx2
@pytest.mark.slow
def test_what_is_damaged_is_compiled_again(home: Path, tmp_path: Path) -> None:
    library = copied(home, tmp_path)
    os.truncate(library, library.stat().st_size // 2)
    out, err = start(CALL, DIFFUSION_LABS_KERNELS="1", XDG_CACHE_HOME=str(tmp_path)).communicate()
    assert (float(out), err) == (pytest.approx(EXPECTED), "")
    assert intact(library)
    assert folder(tmp_path) == [library]


@needs_avx2
@pytest.mark.parametrize("cache", ["none", "not a folder", "not a library"])
def test_where_there_is_no_cache_a_folder_of_the_users_own_is_taken(cache: str, home: Path, tmp_path: Path) -> None:
    temporary, broken = tmp_path / "tmp", tmp_path / "cache"
    own = temporary / f"diffusion_labs-{os.getuid()}"
    own.mkdir(parents=True, mode=0o700)
    (kept,) = folder(home)
    shutil.copy(kept, own)  # as a process before left it
    environment = {"DIFFUSION_LABS_KERNELS": "1", "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(broken)}
    code = CALL
    if cache == "none":  # a user of a container, who is not in its list
        environment["XDG_CACHE_HOME"] = ""
        code = "import os, pathlib\nos.environ.pop('HOME', None)\nos.path.expanduser = lambda path: path\n" + CALL
    elif cache == "not a folder":
        broken.touch()
    else:
        library = broken / "diffusion_labs" / kept.name
        library.parent.mkdir(parents=True)
        library.write_bytes(hashlib.sha256().digest())
    out, err = start(code, **environment).communicate()
    assert (float(out), err) == (pytest.approx(EXPECTED), "")
    assert list(own.iterdir()) == [own / kept.name]


def test_a_folder_that_others_can_write_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = temporary_folder()
    assert own.stat().st_mode & 0o777 == 0o700
    assert temporary_folder() == own
    own.chmod(0o777)
    with pytest.raises(PermissionError, match="alone"):
        temporary_folder()
    own.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    own.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="alone"):
        temporary_folder()


@needs_avx2
def test_without_any_folder_there_is_one_warning_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    (tmp_path / f"diffusion_labs-{os.getuid()}").mkdir(mode=0o755)
    environment = {"DIFFUSION_LABS_KERNELS": "1", "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    out, err = start(CALL + CALL, **environment).communicate()
    assert [float(line) for line in out.split()] == [EXPECTED, EXPECTED]
    assert err.count("could not be compiled or loaded") == err.count("Not a directory") == err.count("alone") == 1


@pytest.mark.parametrize("cxx", ["", " ", "g++ -m64", "env LANG=C g++"])
def test_a_compiler_may_have_options(cxx: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr("diffusion_labs.kernels.build.SOURCES", ("resampling.cpp",))
    assert intact(compiled(tmp_path))


def test_the_path_of_openmp_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "my libraries, ü" / "libgomp-1.so.1.0.0"
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r--p 00000000 08:01 7   /lib/libc.so.6\n7f02-7f03 r-xp 0 08:01 9   {library}\n")
    monkeypatch.setattr("diffusion_labs.kernels.build.MAPS", maps)
    assert openmp() == str(library)


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


@pytest.mark.skipif(
    not list((Path(torch.__file__).parent / "lib").glob("lib*gomp*")), reason="torch has no OpenMP of its own"
)
def test_the_threads_are_torchs_where_others_have_brought_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries are listed by address, which is another in each process."""
    (own,) = (Path(torch.__file__).parent / "lib").glob("lib*gomp*")
    lines = [f"7f00-7f01 r-xp 0 0:0 1 {path}\n" for path in ("/site/scikit_learn.libs/libgomp-e985.so.1.0.0", own)]
    for order in (lines, lines[::-1]):
        (tmp_path / "maps").write_text("".join(order))
        monkeypatch.setattr("diffusion_labs.kernels.build.MAPS", tmp_path / "maps")
        assert openmp() == str(own)
