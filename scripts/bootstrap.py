#!/usr/bin/env python3
"""Create .venv, install the library in it, and run one of its tasks. Standard library only.

    python3 scripts/bootstrap.py [TASK] [ARGUMENTS FOR THE TASK]

The Makefile calls this, so `make TASK` is the same. `.venv/.installed-HASH` says that the environment is
complete for that pyproject.toml and constraints.txt; an interrupted or outdated install is done again.
Benchmarks run in .venv-peers, which also has the libraries that only they compare with.

Torch is installed first and on its own, because an unpinned torch brings several GB of CUDA libraries:
from the index in TORCH_INDEX_URL if that is set; else from a wheel that pip finds locally (find-links);
else, on Linux without an NVIDIA driver, from PyTorch's CPU index; else from pip's usual index.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, BENCH_VENV = ROOT / ".venv", ROOT / ".venv-peers"
CONSTRAINTS = "constraints.txt"  # relative to ROOT: pip splits paths in its environment variables at spaces
HINT = "try `make PYTHON=python3.11 ...` or `python3.11 scripts/bootstrap.py ...`"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Compared with; only what is compared, which needs little of what the packages ask for, see benchmarks/peers.py
PEERS = ["azula", "k-diffusion"]
BENCH_PEERS = [*PEERS, "denoising-diffusion-pytorch", "torchmultimodal-nightly"]

LINT = [["ruff", "format", "--check"], ["ruff", "check"], ["mypy"], ["lint-imports"]]
# -n and -W: a link that leads nowhere is an error; -E: what is gone from the sources is gone from the pages
DOCS = ["sphinx-build", "-n", "-W", "--keep-going", "-E", "-q", "-j", "2", "docs", "docs/_build/html"]
TASKS = {
    "install": [],
    "demo": [["diffusion-labs", "demo", "--run-dir", "runs/demo"]],
    "test": [["pytest"]],
    "test-slow": [["pytest", "-m", "slow"]],
    "lint": LINT,
    "format": [["ruff", "format"], ["ruff", "check", "--fix"]],
    "check": [*LINT, DOCS, ["pytest"]],
    "docs": [DOCS],
    "bench": [["python", "-m", "benchmarks"]],
    "solver-report": [["python", "-m", "benchmarks", "solver_report"]],
    "tutorials": [["python", "scripts/tutorials.py"]],
}
DEFAULTS = {"bench": ["performance"]}  # arguments, if none are given


def stamp(venv):
    """The file whose presence says that this clone's environment is complete and up to date."""
    digest = hashlib.sha256(str(ROOT).encode())  # an environment does not survive being moved
    for name in ("pyproject.toml", CONSTRAINTS):
        digest.update((ROOT / name).read_bytes())
    return venv / (".installed-" + digest.hexdigest()[:16])


def program(venv, name):
    """The path of a program of an environment."""
    return str(venv / ("Scripts" if os.name == "nt" else "bin") / name)


def pip(venv, *arguments, output=None):
    """Run an environment's pip under the constraints, which also pin what the build needs; return its exit code."""
    pins = {"PIP_CONSTRAINT": CONSTRAINTS, "PIP_BUILD_CONSTRAINT": CONSTRAINTS}
    command = [program(venv, "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    environment = {**os.environ, **pins}
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output).returncode


def install_torch(venv):
    """Install the pinned torch, trying the sources in the order that the module's docstring gives."""
    # --no-deps: its dependencies are pinned too, and come from the usual index with all the others
    # --no-compile: Python compiles what is imported, when it is, which makes the install much shorter
    command = ["install", "--no-deps", "--no-compile", "torch"]
    index = os.environ.get("TORCH_INDEX_URL")
    if index:
        return pip(venv, *command, "--index-url", index) == 0
    if pip(venv, *command, "--no-index", output=subprocess.DEVNULL) == 0:
        return True
    if sys.platform == "linux" and not shutil.which("nvidia-smi"):
        print("No NVIDIA driver found: trying PyTorch's CPU index", flush=True)
        if pip(venv, *command, "--index-url", CPU_INDEX, "--retries", "0", "--timeout", "10") == 0:
            return True
        print("That did not work: trying pip's usual index", flush=True)
    return pip(venv, *command) == 0


def install(venv, peers):
    """Make an environment complete. Returns at once if it is."""
    done, unfinished = stamp(venv), venv / ".unfinished"
    if done.exists() and not unfinished.exists():
        return
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what tells
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: {HINT}")

    print(f"Installing into {venv.name}: about a minute, plus the download", flush=True)
    if unfinished.exists() or not venv.exists():
        created = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)])
        if created.returncode:
            sys.exit("python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv")
    unfinished.touch()
    for old in venv.glob(".installed-*"):
        old.unlink()
    if not install_torch(venv):
        sys.exit("Torch could not be installed: see pip's message above")
    if pip(venv, "install", "--no-compile", "-qq", "-e", ".[dev]") or pip(
        venv, "install", "--no-compile", "-qq", "--no-deps", *peers
    ):
        sys.exit("The installation failed: see pip's message above")
    done.touch()
    unfinished.unlink()


def clean():
    """Remove the environments, the caches and the built files."""
    for name in (".venv", ".venv-peers", "build", "dist", "docs/_build"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for name in (".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".import_linter_cache"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ("diffusion_labs", "tests", "examples", "benchmarks", "docs"):
        for cache in sorted((ROOT / folder).rglob("__pycache__")):
            shutil.rmtree(cache, ignore_errors=True)


def main():
    task, arguments = (sys.argv[1] if len(sys.argv) > 1 else "install"), sys.argv[2:]
    if task == "clean":
        return clean()
    if task not in TASKS:
        sys.exit(f"Usage: bootstrap.py [{'|'.join([*TASKS, 'clean'])}] [ARGUMENTS]")

    venv, peers = (BENCH_VENV, BENCH_PEERS) if task == "bench" else (VENV, PEERS)
    install(venv, peers)
    # Without compiled files each of the many processes that tests start would compile torch anew
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    commands = TASKS[task]
    for command in commands:
        extra = (arguments or DEFAULTS.get(task, [])) if command is commands[-1] else []
        finished = subprocess.run([program(venv, command[0]), *command[1:], *extra], cwd=ROOT, env=environment)
        if finished.returncode:
            sys.exit(finished.returncode)
    if task == "docs":
        print("Ready: docs/_build/html/index.html")
    if task == "install":
        print("Ready: .venv is complete")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
