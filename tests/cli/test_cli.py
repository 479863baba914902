"""The command line as a user meets it."""

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_labs import from_pretrained, post_hoc_ema
from diffusion_labs.cli import main
from tests.cli.conftest import SMALL


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int | None = None) -> str:
    """Run the command line in this process, and return what it printed to both streams."""
    if code is None:
        main(words)
    else:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == code
    printed = capsys.readouterr()
    return printed.out + printed.err


def write_idx(folder: Path, count: int = 40) -> Path:
    """A data set in MNIST's format: noise with labels."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "t10k"):
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        labels = (torch.arange(count) % 4).to(torch.uint8)
        for kind, header, data in (
            ("images-idx3", struct.pack(">IIII", 2051, count, 28, 28), images),
            ("labels-idx1", struct.pack(">II", 2049, count), labels),
        ):
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + data.numpy().tobytes()))
    return folder


def test_train_writes_a_whole_run(digits_run: Path) -> None:
    assert json.loads((digits_run / "run.json").read_text())["arguments"]["steps"] == 6
    assert (digits_run / "checkpoints" / "step-00000006" / "manifest.json").exists()
    assert Image.open(digits_run / "samples" / "step-00000006.png").size[0] > 100
    assert list((digits_run / "tensorboard").iterdir())
    assert len((digits_run / "metrics.jsonl").read_text().splitlines()) == 3


def test_sample_writes_the_picture_of_a_seed(digits_run: Path, tmp_path: Path, capsys) -> None:
    pictures = []
    for name, count in (("a", "4"), ("b", "4"), ("c", "2")):
        path = tmp_path / f"{name}.png"
        options = ["--class", "3", "--count", count, "--steps", "3", "--seed", "5", "--guidance-scale", "2"]
        assert str(path) in run(capsys, "sample", str(digits_run), *options, "--out", str(path))
        pictures.append(Image.open(path).convert("RGB"))
    assert pictures[0].tobytes() == pictures[1].tobytes()
    width, height = pictures[2].size
    first_two = pictures[0].crop((0, 0, width, height))
    assert max(abs(a - b) for a, b in zip(first_two.tobytes(), pictures[2].tobytes(), strict=True)) <= 1


@pytest.mark.slow
def test_sample_compiles_the_model_and_says_how_long_it_took(
    digits_run: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With graphs that are run as they are: what PyTorch makes of them for a machine takes it minutes."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    pictures = []
    for options in ([], ["--compile"]):
        path = tmp_path / f"{len(options)}.png"
        printed = run(capsys, "sample", str(digits_run), "--count", "4", "--steps", "3", "--out", str(path), *options)
        assert ("compiled in" in printed) == bool(options)
        pictures.append(Image.open(path).convert("RGB").tobytes())
    assert max(abs(a - b) for a, b in zip(*pictures, strict=True)) <= 1


def test_sample_has_a_place_of_its_own_and_all_classes(digits_run: Path, capsys) -> None:
    printed = run(capsys, "sample", str(digits_run), "--steps", "1", "--count", "20")
    assert str(digits_run / "samples" / "all-seed-0.png") in printed


def test_a_run_with_snapshots_has_averages_of_any_width(digits_run: Path, tmp_path: Path, capsys) -> None:
    run(capsys, "convert", str(digits_run), str(tmp_path / "wide"), "--sigma-rel", "0.1")
    found, expected = from_pretrained(tmp_path / "wide").state_dict(), post_hoc_ema(digits_run, sigma_rel=0.1)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    pictures = []
    for width in ("0.05", "0.1"):
        path = tmp_path / f"{width}.png"
        run(capsys, "sample", str(digits_run), "--steps", "1", "--count", "2", "--sigma-rel", width, "--out", str(path))
        pictures.append(path.read_bytes())
    assert pictures[0] != pictures[1]


def test_mnist_files_train_resume_and_sample(tmp_path: Path, capsys) -> None:
    data, folder = write_idx(tmp_path / "idx"), tmp_path / "run"
    small = ["--data-dir", str(data), "--model-channels", "32", "--run-dir", str(folder), *SMALL]
    run(capsys, "train", "mnist", *small)
    assert "already holds a run; add --resume" in run(capsys, "train", "mnist", *small, code=2)
    run(capsys, "train", "mnist", *small, "--resume")
    changed = run(capsys, "train", "mnist", *small, "--resume", "--learning-rate", "0.5", code=2)
    assert "learning_rate was 0.001, is 0.5" in changed
    assert "did you mean" not in run(capsys, "sample", str(folder), "--class", "3", "--steps", "2", "--count", "2")


def test_a_folder_of_images_trains_with_and_without_classes(tmp_path: Path, capsys) -> None:
    for where in ("plain", "classes/red", "classes/blue"):
        (tmp_path / where).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (20, 24), (40 * i, 0, 0)).save(tmp_path / where / f"{i}.png")
    for where in ("plain", "classes"):
        folder = tmp_path / f"run-{where}"
        options = [
            "--data-dir",
            str(tmp_path / where),
            "--size",
            "16",
            "--model-channels",
            "32",
            "--steps",
            "2",
        ]
        run(capsys, "train", "images", *options, "--batch-size", "4", "--run-dir", str(folder))
        run(capsys, "sample", str(folder), "--steps", "1", "--count", "2")
    run(capsys, "sample", str(folder), "--steps", "1", "--count", "2", "--class", "red")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "mnits"], "unknown recipe 'mnits'; did you mean 'mnist'?"),
        (["train", "mnist", "--data-dir", "/no/such/folder"], "/no/such/folder"),
        (["train", "digits", "--batch-size", "5000"], "batch_size (5000) is larger than the data set"),
        (["train", "digits", "--steps", "0"], "steps (0) must be positive"),
        (["train", "digits", "--model-channels", "30"], "num_groups"),
        (["train", "digits", "--device", "cdua"], "device"),
        (["train", "digits", "--ema-decay", "2"], "ema_decay (2.0) must be in [0, 1)"),
        (["train", "digits", "--ema-sigma-rel", "0.1", "0.4"], "sigma_rel (0.4) must be in (0, 0.2887]"),
        (["convert", "sd1", "model", "--sigma-rel", "0.1"], "--sigma-rel is for the folder of a run alone"),
        (["convert", "sd1", "program.pt2"], "--to pt2 is for the folder of a run alone"),
        (
            ["convert", "sd1", "program", "--to", "aoti"],
            "--to aoti writes a file that ends in .pt2, but DST is program",
        ),
        (["sample", "/no/such/run"], "is not the folder of a run"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(words: list[str], message: str, tmp_path: Path, capsys) -> None:
    if words[0] == "train" and len(words) > 2:
        words = [*words, "--run-dir", str(tmp_path / "run")]
    printed = run(capsys, *words, code=2)
    assert message in printed
    assert "Traceback" not in printed
    assert printed.count("\n") == 1


def test_options_that_do_not_exist_are_refused(capsys) -> None:
    assert "--learning-rate" in run(capsys, "train", "digits", "--learning-rat", "1", code=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "ten"], "unknown class 'ten'; choose one of: 0, 1"),
        (["--count", "0"], "--count is 0"),
        (["--steps", "0"], "--steps is 0"),
        (["--steps", "2000"], "strictly decreasing"),
        (["--out", "picture"], "must end in .png"),
        (["--guidance-scale", "nan"], "must be a number"),
        (["--sigma-rel", "0.5"], "sigma_rel (0.5) must be in (0, 0.2887]"),
    ],
)
def test_mistakes_in_sampling_are_named(digits_run: Path, options: list[str], message: str, capsys) -> None:
    printed = run(capsys, "sample", str(digits_run), *options, code=2)
    assert message in printed
    assert printed.count("\n") == 1


def test_a_size_that_the_network_cannot_halve_is_named_at_once(tmp_path: Path, capsys) -> None:
    data = write_idx(tmp_path / "idx")
    printed = run(capsys, "train", "mnist", "--data-dir", str(data), "--size", "28", "--run-dir", str(tmp_path), code=2)
    assert "images of 28 x 28 pixels do not fit this network: size must be a multiple of 8" in printed


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"recipe": "digits", "arguments": {}, "model": {"a": 1}}'])
def test_a_damaged_description_is_named(digits_run: Path, tmp_path: Path, capsys, content: str) -> None:
    shutil.copytree(digits_run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "run.json").write_text(content)
    assert "run.json" in run(capsys, "sample", str(tmp_path), code=2)


def test_a_damaged_checkpoint_is_named(digits_run: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(digits_run, folder)
    weights = folder / "checkpoints" / "step-00000006" / "ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "ema.safetensors is damaged" in run(capsys, "sample", str(folder), code=2)


def test_help_reads_well(capsys) -> None:
    assert "train" in run(capsys, "--help")
    assert "digits" in run(capsys, "train", "--help")
    text = run(capsys, "train", "mnist", "--help", code=0)
    for words in (
        "--data-dir",
        "--resume",
        "MNIST is downloaded if none is given",
        "updates of the whole run",
        "from which an average of any width can be made after training",
        "experiment trackers to send scalars and pictures to",
    ):
        assert words in " ".join(text.replace("│", " ").split())
    text = run(capsys, "sample", "--help", code=0)
    for words in ("RUN", "--class", "--guidance-scale", "the class to draw"):
        assert words in text


def test_help_does_not_import_torch() -> None:
    code = "import sys; from diffusion_labs.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, timeout=60)
    assert done.returncode == 0
