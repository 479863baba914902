"""Mistakes are one line and exit code 2, help needs no PyTorch, and what is stopped says how it goes on."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from diffusion_labs.cli import COMMANDS, main
from diffusion_labs.cli.list import WHERE
from diffusion_labs.recipes.components import components, find_component
from diffusion_labs.training.log import RunLog
from tests.cli.conftest import SMALL


def mistake(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """The one line that a mistake is told in."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == code
    said = capsys.readouterr().err
    line = said.strip().splitlines()[-1]
    assert line.startswith("diffusion-labs: ")
    if code == 2:
        assert said == f"{line}\n"
    return line


def test_what_a_chosen_sampler_cannot_do_is_told(digits_run: Path, tmp_path: Path, capsys) -> None:
    words = ["sample", str(digits_run), "--count", "1", "--steps", "8", "--out", str(tmp_path / "picture.png")]
    main([*words, "--sampler", "heun"])
    said = capsys.readouterr().err
    assert "warning: long step: HeunSampler with eval_steps=8" in said
    assert "karras" in said
    main(words)
    assert "long step" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("smaple", "did you mean 'sample'?"),
        ("encode ldm-mnits", "did you mean 'ldm-mnist'?"),
        ("plan MNIST", "did you mean 'mnist'?"),
        ("list sampler", "did you mean 'samplers'?"),
        ("train digits --learning-rat 1", "did you mean --learning-rate?"),
        ("sample {run} --guidance-scal 1", "did you mean --guidance-scale?"),
        ("sample {run} --sampler huen", "unknown sampler 'huen'; did you mean 'heun'?"),
        ("sample {run} --sampler DDIMsampler", "unknown sampler"),
        ("sample {run} --grid Karras", "unknown grid 'Karras'; did you mean 'karras'?"),
        ("train digits --track wandbb", "unknown tracker 'wandbb'; did you mean 'wandb'?"),
        ("train digits --trak wandb", "did you mean --track?"),
        ("convert {run} to --preset cin265", "did you mean 'cin256'?"),
        ("convert {run} to --to difusers", "--to: unknown choice 'difusers'; did you mean 'diffusers'?"),
        (
            "evaluate {run} --reference . --features clasifier",
            "unknown features 'clasifier'; did you mean 'classifier'?",
        ),
        ("sample {run}s", "it does not exist; did you mean '{run}'?"),
    ],
)
def test_what_is_misspelt_is_guessed(digits_run: Path, capsys, words: str, message: str) -> None:
    assert message.format(run=digits_run) in mistake(capsys, *words.format(run=digits_run).split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train digits --steps abc", "--steps"),
        ("train digits --steps", "--steps"),
        ("train digits --parallelism ddp2", "'ddp2'"),
        ("train digits --run-dir {run}", "add --resume"),
        ("train images --data-dir {empty}", "{empty}"),
        ("plan digits --memory 0", "memory (0.0)"),
        ("plan images --data-dir /nowhere", "/nowhere"),
        ("encode ldm-mnist --data-dir /nowhere", "/nowhere"),
        ("sample", "RUN"),
        ("sample {empty}", "is not the folder of a run"),
        ("sample {run} and more", "and, more"),
        ("sample {run} --prompt apple", "takes no captions"),
        ("sample {run} --device cuda:7", "cuda:7"),
        ("sample {run} --grid linspace --steps 2000", "linspace"),
        ("sample {damaged}", "is damaged"),
        ("evaluate {run}", "--reference"),
        ("evaluate {run} --reference /nowhere", "/nowhere"),
        ("evaluate {run} --reference {one}", "1000 samples and 1 real images are too few; give at least 10 samples"),
        ("evaluate {run} --reference {one} --count 1", "1 samples and 1 real images are too few"),
        ("evaluate {run} --reference {one} --features nowhere.pt", "there is no such file"),
        ("evaluate {run} --reference {one} --out {empty}/no/card.json", "there is no folder {empty}/no"),
        ("evaluate {empty} --reference {one}", "{empty} is empty"),
        ("evaluate /nowhere --reference {one}", "/nowhere does not exist"),
        ("evaluate {one} --reference {one}", "is no run; give --size"),
        ("sample {run} --out {empty}/no/picture.png", "there is no folder {empty}/no"),
        ("sample {run} --sampler fitted --steps 51", "is for few steps, at most 50"),
        ("sample {one}/a.png", "is not the folder of a run: it is a file"),
        ("sample {run}/..", "choose one of the runs in it: {run}/../digits"),
        ("sample {converted}", "which `diffusion-labs play` and from_pretrained open"),
        ("play {run} --port 99999", "--port is 99999; it must be from 1 to 65535"),
        ("train digits --run-dir {one}/a.png", "is a file; give the run a folder"),
        ("train digits --run-dir {empty}/new --model-channels 33", "choose model_channels that are a multiple of"),
        ("convert {run} {empty}/to --to diffusers", "a DDIMSampler, for which diffusers has no class"),
        ("convert {one}/a.png {empty}/to", "(UnpicklingError)"),
        ("evaluate {damaged} --reference {empty}", "is damaged"),
        ("convert {damaged} {empty}/to", "is damaged"),
        ("convert {run} {empty}/to.ckpt", "end it in .safetensors"),
        ("convert {run} {empty}/to.pth --to compvis", "end it in .safetensors"),
        ("convert /nowhere to", "/nowhere"),
        ("convert {run} {empty}/to --to karlo", "karlo"),
        ("demo --run-dri x", "did you mean --run-dir?"),
    ],
)
def test_mistakes_of_all_commands_are_one_line(
    digits_run: Path, tmp_path: Path, capsys, words: str, message: str
) -> None:
    places = {"run": digits_run} | {name: tmp_path / name for name in ("empty", "damaged", "one", "converted")}
    for name in ("empty", "one", "converted"):
        places[name].mkdir()
    Image.new("L", (8, 8)).save(places["one"] / "a.png")
    (places["converted"] / "config.json").touch()
    shutil.copytree(digits_run, places["damaged"])
    weights = places["damaged"] / "checkpoints" / "step-00000006" / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    said = mistake(capsys, *(word.format(**places) for word in words.split()))
    assert message.format(**places) in said


def test_a_checkpoint_of_another_model_is_named(digits_run: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    described = tmp_path / "run" / "run.json"
    described.write_text(described.read_text().replace('"model_channels": 64', '"model_channels": 32'))
    assert "another model" in mistake(capsys, "sample", str(tmp_path / "run"))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["help"],
        ["help", "sample"],
        *([command, "--help"] for command in COMMANDS),
        ["train"],
        ["list"],
        ["list", "samplers"],
        ["list", "grids"],
    ],
    ids=" ".join,
)
def test_help_and_lists_need_no_torch(words: list[str]) -> None:
    """Importing PyTorch alone takes longer than half a second."""
    code = f"""
import sys
from diffusion_labs.cli import main
try:
    main({words})
except SystemExit as stop:
    assert not stop.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize("kind", WHERE)
def test_every_kind_is_listed(kind: str, capsys) -> None:
    main(["list", kind])
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("kind", ["samplers", "grids", "schedules", "predictors", "adapters"])
def test_what_is_listed_is_there_with_a_line_about_each(kind: str) -> None:
    for short, component in components(kind).items():
        assert component.summary
        assert find_component(kind, short) is find_component(kind, component.name)


def test_training_that_is_stopped_tells_the_command_that_goes_on(tmp_path: Path, capsys, monkeypatch) -> None:
    words = ["train", "digits", *SMALL, "--run-dir", str(tmp_path / "a run")]
    with monkeypatch.context() as patched:
        patched.setattr(RunLog, "advance", lambda log, step: step == 1 and signal.raise_signal(signal.SIGINT))
        said = mistake(capsys, *words, code=130)
    assert "stopped at step 2 of 6" in said  # which is on its way when the first is known
    again = shlex.split(said.partition("go on with: ")[2])
    assert again == ["diffusion-labs", *words, "--resume"]
    main(again[1:])
    assert (tmp_path / "a run" / "checkpoints" / "step-00000006").is_dir()


def test_what_is_interrupted_elsewhere_tells_it_too(capsys, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion_labs.recipes.run.load_run", interrupted)
    monkeypatch.setattr("diffusion_labs.cli.recipe.prepare_run", interrupted)
    again = "start again with: diffusion-labs sample 'my run'"  # nothing of it is kept
    assert mistake(capsys, "sample", "my run", code=130).endswith(again)
    assert mistake(capsys, "train", "digits", code=130).endswith("go on with: diffusion-labs train digits --resume")


OWN = '''
def own(steps: int = 5):
    """A recipe."""


def untyped(steps=5):
    """A recipe whose options have no types."""


class NoSampler:
    """Something else."""
'''


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train nowhere.py", "there is no file nowhere.py"),
        ("plan nowhere:recipe", "there is no module nowhere"),
        ("train own.py:owm", "unknown name 'owm'; did you mean 'own'?"),
        ("train own.py --stesp 3", "did you mean --steps?"),
        ("train own.py:untyped", "arguments without types, of which its options are made: ['steps']"),
        ("sample {run} --sampler own.py:NoSampler", "which is no sampler"),
        ("sample {run} --sampler random.py:Random", "random.py has the name of another module"),
    ],
)
def test_what_is_wrong_with_names_of_own_files(
    digits_run: Path, tmp_path: Path, capsys, monkeypatch, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own", raising=False)
    for file in ("own.py", "random.py"):
        Path(file).write_text(OWN)
    assert message in mistake(capsys, *words.format(run=digits_run).split())


def test_the_version_is_told(capsys) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"diffusion-labs {version('diffusion-labs')}\n"


def test_a_reader_who_has_read_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "diffusion_labs", "list", "presets"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as listing:
        listing.stdout.close()  # before anything is written
        assert listing.stderr.read() == b""
        assert listing.wait(timeout=120) == 141


def test_warnings_are_one_line_each_and_do_not_repeat_for_ever() -> None:
    code = """
import warnings
from diffusion_labs.cli import list as command, main
def run(words):
    for number in range(9):
        warnings.warn(f"update {number}\\nis skipped")
command.run = run
main(["list"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    told = [f"diffusion-labs: warning: update {number} is skipped" for number in (0, 1, 3, 7)]
    assert done.stderr.splitlines() == told
