"""What holds for which component: one graph, any batch size, export, float64, bfloat16, DDP and FSDP2.

python -m benchmarks compatibility --out docs/compatibility.md

Every cell is the result of the test in ``tests/contracts`` that asks for it, run here; what fails says why. It takes
about an hour of one core. With ``--only`` the cells of some components are found again, and the others are those of the
last run, which are kept beside the page's draft in ``runs``.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
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
HOLDS = "yes"
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
    parser.add_argument("--only", nargs="*", default=[""], help="components whose name begins so")
    parser.add_argument(
        "--results", type=Path, default=Path("runs/compatibility.json"), help="the cells that were found"
    )
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    before = json.loads(chosen.results.read_text()) if chosen.results.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in components() if name.startswith(tuple(chosen.only))]
        found = {**before, **cells_of(names, Path(folder))}
    found = {name: found[name] for name in components() if name in found}
    for path, text in ((chosen.results, json.dumps(found, indent=1)), (chosen.out, page(found))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"wrote {chosen.out}")


def components() -> dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]]:
    """All of the catalogue, by kind and name, with what each is called with."""
    from tests.contracts.test_modules import COMPONENTS

    return COMPONENTS


def cells_of(names: Sequence[str], folder: Path) -> dict[str, dict[str, str]]:
    """The cells of some components, by the names of the columns."""
    trained = sorted(name.removeprefix("network-") for name in names if name.startswith("network-"))
    if trained:
        train_by_two(trained, folder)
    return {name: row(name, folder) for name in names}


def page(results: Mapping[str, Mapping[str, str]]) -> str:
    """The page, of the cells of all components."""
    parts = [INTRODUCTION.format(version=torch.__version__.partition("+")[0], python=platform.python_version())]
    every = [cell for cells in results.values() for cell in cells.values()]
    reasons = [cell for cell in dict.fromkeys(every) if cell != HOLDS]
    for kind, title in KINDS.items():
        rows = {name: cells for name, cells in results.items() if name.partition("-")[0] == kind}
        columns = [column for column in COLUMNS if any(column in cells for cells in rows.values())]
        lines = [
            [f"`{name.removeprefix(kind + '-')}`", *(written(cells.get(column), reasons) for column in columns)]
            for name, cells in rows.items()
        ]
        if rows:
            parts.append(f"## {title}\n\n{table(['', *columns], lines)}\n")
    if reasons:
        listed = "\n".join(f"{place}. `{reason}`" for place, reason in enumerate(reasons, 1))
        parts.append(f"## What does not hold, and why\n\n{listed}\n")
    return "\n".join(parts)


def written(cell: str | None, reasons: Sequence[str]) -> str:
    """A cell, with the number of its reason if it does not hold; nothing if it was not asked for."""
    if cell is None or cell == HOLDS:
        return cell or ""
    return f"no [{reasons.index(cell) + 1}]"


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
    torch.compiler.reset()  # without what was compiled before
    with warnings.catch_warnings(action="ignore"):
        try:
            check()
        except Exception as error:  # whatever it is, the page says it
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"{type(error).__name__}: {lines[0] if lines else ''}"
    return HOLDS
