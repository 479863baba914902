"""Every recipe on two processes, each with a part of the model: what they leave is a run as any other."""

import json
import math
from pathlib import Path

import pytest
import torch

from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.run import load_run
from tests.cli.test_cli import write_idx
from tests.data.test_tar import png, write_tar
from tests.training.test_processes import start

TWO = ["--steps", "2"]
CHAIN = [f"--{stage}-steps=2" for stage in ("clip", "prior", "decoder", "upsampler")]
RECIPES = {
    "mnist": [*TWO, "--model-channels", "32"],
    "dit-mnist": [*TWO, "--dim", "32", "--depth", "2"],
    "ldm-mnist": [*TWO, "--autoencoder-steps", "2"],
    "dalle2-mnist": [*CHAIN, "--size", "16"],
    "dalle2-emoji": [*CHAIN, "--size", "32", "--decoder-size", "16"],
}
RESTORING = {"super-resolution-mnist": TWO, "inpainting-mnist": TWO}


def carry_out(recipe: str, options: list[str], folder: Path) -> Path:
    """Train with two processes, and return the run's folder."""
    if recipe.endswith("emoji"):
        files: dict[str, bytes | str] = {}
        for i in range(12):
            files |= {f"{i}.png": png((20 * i, 255 - 20 * i, 0, 255), "RGBA"), f"{i}.txt": f"a square of colour {i}"}
        data = write_tar(folder / "0.tar", files)
    else:
        data = write_idx(folder / "idx")
    run_dir = folder / "run"
    command = ["-m", "diffusion_labs", "train", recipe, "--data-dir", str(data), "--run-dir", str(run_dir)]
    more = ["--batch-size", "2" if recipe.endswith("emoji") else "8", "--parallelism", "fsdp", "--log-every", "1"]
    processes = start(2, *command, *more, *options)
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    losses = [
        json.loads(line)["loss"] for file in run_dir.rglob("metrics.jsonl") for line in file.read_text().splitlines()
    ]
    assert len(losses) >= 2
    assert all(math.isfinite(loss) for loss in losses)
    return run_dir


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_train_what_one_draws_from(recipe: str, tmp_path: Path) -> None:
    model, sizes = load_run(carry_out(recipe, RECIPES[recipe], tmp_path))
    conditions = ["a square", "3"] if sizes.conditions == ["caption"] else torch.tensor([1, 2])
    one, other = draw(model, sizes, conditions, seed=0, steps=2)
    assert not torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("recipe", RESTORING)
def test_two_processes_train_what_restores(recipe: str, tmp_path: Path) -> None:
    model, sizes = load_run(carry_out(recipe, RESTORING[recipe], tmp_path))
    x = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
    prepared = sizes.prepare()({"x": x})
    images = draw(model, sizes, torch.zeros(2), seed=0, known={key: prepared[key] for key in sizes.known}, steps=2)
    assert images.isfinite().all()
