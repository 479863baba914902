"""The recipes that restore images, two updates each."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_labs.cli import main
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.run import load_run
from tests.cli.test_cli import write_idx


@pytest.mark.parametrize("name", ["super-resolution-mnist", "inpainting-mnist"])
def test_two_updates_leave_a_model_that_listens_to_what_is_known(name: str, tmp_path: Path, capsys) -> None:
    data, run_dir = write_idx(tmp_path / "idx"), tmp_path / "run"
    small = ["--steps", "2", "--batch-size", "4", "--run-dir", str(run_dir)]
    main(["train", name, "--data-dir", str(data), *small])
    assert Image.open(run_dir / "samples" / "step-00000002.png").size == (8 * 68 + 4, 3 * 68 + 4)

    model, sizes = load_run(run_dir)
    x = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
    prepared = sizes.prepare()({"x": x})
    known = {key: prepared[key] for key in sizes.known}
    other = {key: value.flip(0) for key, value in known.items()}
    one, two = (draw(model, sizes, torch.zeros(2), seed=0, known=inputs, steps=2) for inputs in (known, other))
    assert not torch.equal(one, two)

    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["sample", str(run_dir)])
    assert "restores images and needs" in capsys.readouterr().err
