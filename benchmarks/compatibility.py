"""What holds for which component: one graph, any batch size, export, float64, bfloat16, DDP and FSDP2.

python -m benchmarks compatibility --out docs/compatibility.md

Every cell is the result of the test in ``tests/contracts`` that asks for it, run here; what fails says why. It takes
about an hour of one core, most of it by the networks that two processes train.
"""

import argparse
import contextlib
import gc
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.markdown import table

KINDS = {
    "network": "Networks",
    "adapter": "Adapters, in eval and in train mode",
    "system": "Systems and condition encoders",
    "autoencoder": "Autoencoders",
    "discriminator": "Discriminators",
    "classifier": "Classifiers",
    "scale": "Scales of latents",
    "sampler": "Samplers: a call in train mode; the whole loop in eval mode",
    "predictor": "Predictors",
    "schedule": "Schedules",
    "density": "Densities of training times",
    "transform": "Transforms",
    "loss": "Losses",
    "objective": "Objectives",
}
HOLDS, NOT_ASKED = "yes", ""
COLUMNS = ("one graph", "whole loop", "any batch", "export", "float64", "bfloat16", "DDP", "FSDP2", "FSDP2, compiled")

INTRODUCTION = """# What works with what

Made by `python -m benchmarks compatibility --out docs/compatibility.md`, with PyTorch {version}, Python {python}: each
cell is the result of a test of `tests/contracts`, run by the script. An empty cell is not asked for: a schedule has no
weights to share between processes. The rows are those of `tests/catalogue.py`, which has every public component.

| column | what was done |
|---|---|
| one graph | `torch.compile(fullgraph=True)`, traced through autograd, and compared with eager mode |
| whole loop | of a sampler in eval mode, from noise to data, likewise |
| any batch | batches of 4, 2 and 3 samples and other values: the first graph serves all |
| export | `torch.export.export`, and the program compared with eager mode |
| float64, bfloat16 | `.to(dtype)`: keeps the data's dtype, and agrees with float32 within its precision |
| DDP, FSDP2 | three updates by two processes, in an adapter, with clipped gradients and averages: as by one |
| FSDP2, compiled | the same with compiled blocks, in groups of one (hybrid sharding) |
"""


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compatibility", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/compatibility.md"), help="the page")
    parser.add_argument("--only", default="", help="components whose name begins so")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        text = page([name for name in components() if name.startswith(chosen.only)], Path(folder))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(text)
    print(f"wrote {chosen.out}")


def components() -> dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]]:
    """All of the catalogue, by kind and name, with what each is called with."""
    from tests.contracts.test_modules import COMPONENTS

    return COMPONENTS


def page(names: Sequence[str], folder: Path) -> str:
    """The page of some components."""
    trained = sorted(name.removeprefix("network-") for name in names if name.startswith("network-"))
    train_by_two(trained, folder)
    results = {name: row(name, folder) for name in names}
    parts = [INTRODUCTION.format(version=torch.__version__.partition("+")[0], python=platform.python_version())]
    failed: list[str] = []
    for kind, title in KINDS.items():
        rows = {name: cells for name, cells in results.items() if name.partition("-")[0] == kind}
        columns = [column for column in COLUMNS if any(column in cells for cells in rows.values())]
        lines = []
        for name, cells in rows.items():
            lines.append([f"`{name.removeprefix(kind + '-')}`"])
            for column in columns:
                found = cells.get(column, NOT_ASKED)
                if found not in (HOLDS, NOT_ASKED):
                    failed.append(found)
                    found = f"no [{failed.index(found) + 1}]"
                lines[-1].append(found)
        if rows:
            parts.append(f"## {title}\n\n{table(['', *columns], lines)}\n")
    reasons = list(dict.fromkeys(failed))
    if reasons:
        listed = "\n".join(f"{failed.index(reason) + 1}. {reason}" for reason in reasons)
        parts.append(f"## What does not hold, and why\n\n{listed}\n")
    return "\n".join(parts)


def row(name: str, folder: Path) -> dict[str, str]:
    """The cells of a component that are asked for."""
    from tests.contracts import test_compiled, test_modules, test_recompiles, test_sharding

    kind, _, own = name.partition("-")
    checks: dict[str, Callable[[], None]] = {
        "one graph": lambda: test_modules.test_compiles_as_one_graph_that_equals_eager(name, "aot_eager")
    }
    if kind == "sampler" and own in test_compiled.SAMPLERS:
        checks["whole loop"] = lambda: test_compiled.test_the_whole_loop_is_one_graph_that_equals_eager(
            own, "continuous_cosine"
        )
    if name in test_recompiles.CASES:
        checks["any batch"] = lambda: test_recompiles.test_batches_of_other_sizes_and_values_need_no_other_graph(name)
    if kind not in ("density", "objective"):
        checks["export"] = lambda: export(name)
    for dtype in (torch.float64, torch.bfloat16):
        if name in test_modules.IN_ANY_DTYPE:
            checks[str(dtype).removeprefix("torch.")] = lambda dtype=dtype: (
                test_modules.test_keeps_the_dtype_of_the_data_and_agrees_with_float32(name, dtype)
            )
    for column, way in {"DDP": "whole", "FSDP2": "parts", "FSDP2, compiled": "compiled"}.items():
        if kind == "network" and own in test_sharding.TRAINED:
            checks[column] = lambda way=way: test_sharding.test_two_processes_train_as_one_does(folder, own, way)
    print(name, file=sys.stderr)
    return {column: result_of(check) for column, check in checks.items()}


def export(name: str) -> None:
    """Export a component, and compare."""
    from tests.contracts.test_modules import assert_same, run

    module, args = components()[name]()
    program = torch.export.export(module, args, strict=False).module()
    assert_same(run(program, args), run(module, args), rtol=1e-4, atol=1e-5)


def train_by_two(names: Sequence[str], folder: Path) -> None:
    """Let two processes train networks in each way, as ``tests/contracts/test_sharding.py`` does."""
    from tests.contracts.test_sharding import TRAINED, TWO_AND_ONE

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", TWO_AND_ONE, str(folder), *(name for name in names if name in TRAINED)]
    processes = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    for process in processes:
        process.wait()


def result_of(check: Callable[[], None]) -> str:
    """Whether a check holds, or why it does not."""
    with fresh_compiler(), warnings.catch_warnings(action="ignore"):
        try:
            check()
        except Exception as error:  # whatever it is, the page says it
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"{type(error).__name__}: {lines[0] if lines else ''}"
    return HOLDS


@contextlib.contextmanager
def fresh_compiler() -> Iterator[None]:
    """Without what was compiled before."""
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()
        gc.collect()
