"""A run on a stream of tars goes on as if it had not stopped; processes share what is encoded."""

from pathlib import Path

import pytest
import torch

from diffusion_labs.recipes.image_stream import image_stream
from diffusion_labs.training import TrainOptions, latest_checkpoint, load_checkpoint
from tests.data.tars import samples, write_tar
from tests.training.test_processes import start

ENCODING = """
import sys, torch
from pathlib import Path
from torch import nn
from diffusion_labs.data import TensorImages
from diffusion_labs.recipes.encoding import encoding_stage
from diffusion_labs.recipes.image_diffusion import ImageModel
from diffusion_labs.recipes.stages import Stages
from diffusion_labs.training import TrainOptions

images = torch.arange(10_000).remainder(251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
dataset = TensorImages(images, torch.zeros(10_000, dtype=torch.long), ["all"])
stage = encoding_stage(
    "latents",
    dataset,
    ImageModel((1, 8, 8), ()),
    encoder="linear",
    trained=lambda run_dir: torch.nn.Linear(2, 3),
    encode=lambda linear, batch, device: {"z": linear(batch["x"])},
)
torch.manual_seed(0)
Stages([stage], {}, {}).carry_out(Path(sys.argv[1]), TrainOptions())
"""


@pytest.mark.slow
def test_a_run_on_a_stream_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for tar in range(3):
        numbers = range(5 * tar, 5 * tar + 5)
        write_tar(tmp_path / f"{tar}.tar", samples(numbers, **{f"{number:03d}.txt": None for number in numbers}))

    def trained(name: str, *steps: int) -> dict:
        for number in steps:
            stages = image_stream(
                str(tmp_path / "{0..2}.tar"), size=8, buffer_size=4, steps=number, batch_size=4, model_channels=32
            )
            stages.carry_out(tmp_path / name, TrainOptions(resume=True))
        return load_checkpoint(latest_checkpoint(tmp_path / name / "checkpoints"))["batches"]

    torch.testing.assert_close(trained("parts", 2, 5), trained("whole", 5), rtol=0, atol=0)


@pytest.mark.slow
def test_processes_encode_the_same_shards(tmp_path: Path) -> None:
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        processes = start(count, "-c", ENCODING, str(folder))
        assert [process.wait(timeout=600) for process in processes] == [0] * count
        files = [path for path in folder.rglob("*") if path.is_file()]
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert len(found[0]) == 2 + 2 * 2
