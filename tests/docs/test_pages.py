"""The code of the pages runs as it stands, and what it prints is what the pages say."""

import doctest
import importlib.util
import inspect
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.cli import main
from diffusion_labs.recipes.catalogue import RECIPES, find_recipe
from diffusion_labs.training.log import read_metrics
from tests.cli.conftest import SMALL

DOCS = Path(__file__).parents[2] / "docs"
CONCEPTS = sorted(path.stem for path in (DOCS / "concepts").glob("*.md"))


def blocks(page: Path, info: str = "python") -> list[str]:
    """The blocks of code of a page whose first line is this after the quotes."""
    return re.findall(rf"^```{info}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def run(code: str, place: str, names: dict[str, Any]) -> None:
    """Run statements, or a dialogue and compare its outputs."""
    if ">>>" not in code:
        exec(compile(code, place, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(code, names, place, place, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    runner.run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    assert not runner.failures, "".join(report)


def run_page(name: str, info: str = "python") -> Mapping[str, Any]:
    """Run the blocks of a page in order, in one namespace, which is returned."""
    names: dict[str, Any] = {}
    found = blocks(DOCS / f"{name}.md", info)
    assert found, f"docs/{name}.md has no code to run"
    for i, code in enumerate(found):
        run(code, f"docs/{name}.md, block {i + 1}", names)
    return names


@pytest.mark.parametrize("name", CONCEPTS)
def test_the_page_of_a_concept_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(f"concepts/{name}")


def test_there_is_a_page_for_each_concept() -> None:
    assert CONCEPTS == ["adapters", "models", "predictors", "samplers", "schedules", "transforms"]


def test_the_page_of_formats_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page("interop")


def test_the_tracker_of_the_page_gets_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page("tracking")
    rows = [row.split(",") for row in Path("losses.csv").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["digits", step] for step in "246"]
    assert [float(row[2]) for row in rows] == [line["loss"] for line in read_metrics(Path("runs/digits"))]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and a scheduler as diffusers writes them, in the folder where the code runs."""
    diffusers = pytest.importorskip("diffusers", reason="the page is about diffusers")
    monkeypatch.chdir(tmp_path)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    network.save_pretrained("checkpoint/unet")
    diffusers.DDIMScheduler(clip_sample=False).save_pretrained("checkpoint/scheduler")


@pytest.fixture
def pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelines as diffusers writes them, in the folder where the code runs."""
    from tests.interop.test_diffusers_pipeline_images import pipeline_of, stable_diffusion_unet

    monkeypatch.chdir(tmp_path)
    unet = stable_diffusion_unet(of_2=False, in_channels=9)
    for kind, name, parts in (("Img2Img", "stable-diffusion", {}), ("Inpaint", "inpainting", {"unet": unet})):
        (tmp_path / kind).mkdir()
        pipeline_of(f"StableDiffusion{kind}Pipeline", tmp_path / kind, **parts).save_pretrained(name)


PAGE = DOCS / "migration.md"
FROM_DIFFUSERS = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def of_diffusers(place: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a block of code for diffusers makes, and the one that replaces it."""
    theirs: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    run(blocks(PAGE, "python before")[place], str(PAGE), theirs)
    run(blocks(PAGE)[place], str(PAGE), ours)
    return theirs, ours


@pytest.mark.slow
@pytest.mark.usefixtures("checkpoint")
@FROM_DIFFUSERS
def test_what_was_written_for_diffusers_and_what_replaces_it() -> None:
    for names in of_diffusers(0):
        assert sum(names["losses"][-5:]) < 0.7 * sum(names["losses"][:5])
        assert names["x"].shape == (10, 1, 8, 8)
        assert names["x"].isfinite().all()
    theirs, ours = of_diffusers(2)
    torch.testing.assert_close(ours["x"], theirs["x"], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("checkpoint")
@FROM_DIFFUSERS
def test_a_run_written_for_diffusers_and_what_replaces_it() -> None:
    """Both learn alike, and at the learning rates that the page tells."""
    theirs, ours = of_diffusers(1)
    losses = [line["loss"] for line in read_metrics(Path("run"))]
    for found in (theirs["losses"], losses):
        assert len(found) == 30
        assert sum(found[-5:]) < 0.7 * sum(found[:5])
    ema, optimizer = theirs["ema"], torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    decays = [min(0.99, n / (9 + n)) for n in range(2, 31)]
    assert [ema.get_decay(n) for n in range(2, 31)] == pytest.approx(decays)
    assert [ours["state"].ema.decay_of(n) for n in range(2, 31)] == pytest.approx(decays)
    their_rates = theirs["get_cosine_schedule_with_warmup"](optimizer, 5, 30).lr_lambdas[0]
    our_rates = ours["experiment"].learning_rate
    assert (their_rates(0), our_rates(0)) == (0, pytest.approx(1 / 6))
    assert [our_rates(n) for n in range(5, 31)] == pytest.approx([their_rates(n) for n in range(5, 31)])


@pytest.mark.usefixtures("checkpoint", "pipelines")
@FROM_DIFFUSERS
def test_images_that_begin_with_images_are_those_of_diffusers() -> None:
    theirs, ours = of_diffusers(3)
    torch.testing.assert_close(ours["images"], theirs["images"], rtol=0, atol=1e-4)
    ours["system"].sampler.progress_bar = False
    run(blocks(PAGE)[4], str(PAGE), ours)
    loaded = dl.load_diffusers_pipeline("inpainting", eval_steps=10, guidance_scale=5.0)
    loaded.sampler.progress_bar = False
    given = {"caption": ["a cat"], "mask": ours["mask"], "masked_image": ours["known"]}
    torch.testing.assert_close(loaded(ours["noise"], conditional_inputs=given), ours["painted"])


@pytest.mark.parametrize("page", ["how-to", "recipes"])
def test_own_files_are_used_as_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_run: Path
) -> None:
    """In Python and on the command line; the blocks that name a file are written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for code in blocks(DOCS / f"{page}.md", "python own"):
        if code.startswith("# "):
            Path(code.partition("\n")[0].removeprefix("# ")).write_text(code)
        else:
            run(code, page, {})
    if page == "recipes":
        main(["train", "my_digits.py", *SMALL[:2], "--model-channels", "32"])
        main(["sample", "runs/my_digits", "--count", "1", "--steps", "2", "--out", "picture.png"])
    else:
        own = ["--sampler", "ralston.py:RalstonSampler"]
        main(["sample", str(digits_run), "--count", "1", "--steps", "2", "--out", "picture.png", *own])
    assert Path("picture.png").is_file()


def tables(page: str) -> list[list[list[str]]]:
    """The tables of a page: of each its rows, without the heading, of cells."""
    found = re.findall(r"^\|[-|]+\|\n((?:\|.*\|\n)+)", (DOCS / page).read_text(), re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()] for table in found]


def names_in(cell: str) -> list[str]:
    """What a cell names: ``DDIMSampler``, and ``clamp`` of a longer piece of code is not a name."""
    return re.findall(r"`([A-Za-z_][A-Za-z0-9_]*)(?:\([^`]*\))?`", cell)


def test_the_names_of_diffusers_exist() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the page is about diffusers")
    _, _, schedulers, _, _, models, _ = tables("migration.md")
    theirs = {*dir(diffusers), *dir(diffusers.schedulers)}
    assert {name for row in [*schedulers, *models] for name in names_in(row[0])} <= theirs


def test_the_new_names_are_ours() -> None:
    _, _, schedulers, keys, _, models, torchmultimodal = tables("migration.md")
    cells = [row[1] for row in schedulers] + [cell for row in models for cell in row[1:]]
    cells += [row[1] for row in torchmultimodal]
    named = {name for cell in cells for name in names_in(cell)}
    assert named <= set(dl.__all__)
    assert keys


def test_the_keys_of_schedulers_become_what_the_page_says() -> None:
    """Each row that names a table of betas or a predictor is one that ``from_diffusers_config`` reads so."""
    _, _, _, keys, *_ = tables("migration.md")
    checked = 0
    for old, new in keys:
        match = re.fullmatch(r'`(beta_schedule|prediction_type)="(\w+)"`', old)
        if not match:
            continue
        config = {"_class_name": "DDIMScheduler", match[1]: match[2]}
        if match[2] == "sigmoid":
            config["_class_name"] = "DDPMScheduler"
        schedule, predictor, _ = dl.from_diffusers_config(config)
        (name,) = names_in(new)
        if match[1] == "prediction_type":
            assert type(predictor).__name__ == name
        else:
            ends = () if "cos" in match[2] else (1e-4, 0.02)
            torch.testing.assert_close(schedule.betas, getattr(dl, name)(1000, *ends))
        checked += 1
    assert checked == 7


def test_every_public_name_has_an_entry() -> None:
    """In the reference, by the parts that its pages name; what a page makes of them, ``make docs`` checks."""
    spec = importlib.util.spec_from_file_location("public_names", DOCS / "extensions" / "public_names.py")
    assert spec is not None
    assert spec.loader is not None
    public_names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(public_names)
    assert {f"diffusion_labs.{name}" for name in dl.__all__} <= public_names.NAMES.keys()
    pages = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.rst"))
    parts = {part for line in re.findall(r"^\.\. public:: (.*)$", pages, re.MULTILINE) for part in line.split()}
    homeless = [
        name
        for name, module in public_names.NAMES.items()
        if not any(f"{module}.".startswith(f"diffusion_labs.{part}.") for part in parts)
    ]
    assert not homeless


def test_the_recipes_are_all_there_with_commands_that_they_understand() -> None:
    (rows,) = tables("recipes.md")
    assert [row[0].strip("`") for row in rows] == list(RECIPES)
    for name, _, command, data in rows:
        program, verb, recipe, *options = shlex.split(command.strip("`"))
        assert (program, verb, recipe) == ("diffusion-labs", "train", name.strip("`"))
        parameters = inspect.signature(find_recipe(recipe)).parameters
        given = {option.removeprefix("--").replace("-", "_") for option in options[::2]}
        needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
        assert needed <= given <= parameters.keys(), command
        assert data
