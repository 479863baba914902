"""The recipes of latent diffusion, two updates a stage: what each leaves, and that a stop costs nothing."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import diffusion_labs as dl
from diffusion_labs.cli import main
from diffusion_labs.data import EncodedDataset, IDXImages
from diffusion_labs.models.ldm import LatentScale
from diffusion_labs.recipes import latent_diffusion
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.emoji import kind_weights
from diffusion_labs.recipes.run import load_run
from diffusion_labs.training import latest_checkpoint, load_checkpoint
from tests.cli.test_cli import write_idx
from tests.data.tars import png, write_tar

SMALL = ["--autoencoder-steps", "2", "--steps", "2", "--batch-size", "8"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx(tmp_path_factory.mktemp("data") / "idx")


@pytest.fixture(scope="module")
def whole_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    main(["train", "ldm-mnist", "--data-dir", str(digits), *SMALL, "--run-dir", str(folder)])
    return folder


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    files: dict[str, bytes | str] = {}
    for i in range(12):
        colour = (20 * i, 255 - 20 * i, 0, 255)
        files |= {f"{i}.png": png(colour, "RGBA"), f"{i}.txt": f"a square of colour {i}"}
    return write_tar(tmp_path / "data" / "0.tar", files)


def final_state(run_dir: Path) -> dict[str, torch.Tensor]:
    newest = latest_checkpoint(run_dir / "diffusion" / "checkpoints")
    assert newest is not None
    return load_checkpoint(newest, ("ema",))["ema"]["model"]


def test_each_stage_leaves_its_folder(whole_run: Path, capsys) -> None:
    for stage in ("autoencoder", "diffusion"):
        assert (whole_run / stage / "checkpoints" / "step-00000002").is_dir()
        assert Image.open(whole_run / stage / "samples" / "step-00000002.png").size[0] > 500
    assert len(EncodedDataset(whole_run / "latents")) == 40
    main(["sample", str(whole_run), "--class", "3", "--count", "2", "--steps", "2"])
    assert Image.open(capsys.readouterr().out.strip()).size[0] > 100


def test_encoding_first_and_training_on_is_the_same_run_to_the_bit(
    digits: Path, whole_run: Path, tmp_path, capsys
) -> None:
    options = ["ldm-mnist", "--data-dir", str(digits), *SMALL, "--run-dir", str(tmp_path / "run")]
    main(["encode", *options])
    assert re.search(r"encode: 100%.* 40/40 ", capsys.readouterr().err)  # its progress
    assert not (tmp_path / "run" / "diffusion").exists()
    main(["train", *options, "--resume"])
    ours, theirs = final_state(whole_run), final_state(tmp_path / "run")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_the_model_of_a_run_is_exported(whole_run: Path, tmp_path: Path) -> None:
    main(["convert", str(whole_run), str(tmp_path / "model")])
    model, _ = load_run(whole_run)
    exported = dl.from_pretrained(tmp_path / "model").eval()
    assert final_state(whole_run).keys() == exported.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, exported.state_dict()[name]), name


def test_stored_latents_are_the_posteriors_and_have_the_spread_of_noise(whole_run: Path, digits: Path) -> None:
    model, sizes = load_run(whole_run)
    stored = EncodedDataset(whole_run / "latents")
    x = latent_diffusion.dataset_images(IDXImages(digits, "train", size=32), range(40))
    with torch.no_grad():
        posterior = model.autoencoder.posterior(x)
    torch.testing.assert_close(torch.stack([sample["latent_mean"] for sample in stored]), posterior.mean)
    z = model.scale.normalize(posterior.sample())
    assert abs(z.std().item() - 1) < 0.05
    assert abs(z.mean().item()) < 0.05
    assert sizes.conditions == ["class"]


def test_the_scale_is_not_measured_again_on_resume(whole_run: Path, digits: Path, monkeypatch) -> None:
    def fail(*_: object) -> LatentScale:
        raise AssertionError("measured again")

    before = load_run(whole_run)[0].scale.scale.item()
    monkeypatch.setattr(LatentScale, "measured", fail)
    main(["train", "ldm-mnist", "--data-dir", str(digits), *SMALL, "--run-dir", str(whole_run), "--resume"])
    assert load_run(whole_run)[0].scale.scale.item() == before != 1


def test_captions_train_with_the_discriminator_and_say_what_to_draw(captioned: Path, tmp_path: Path, capsys) -> None:
    run_dir = tmp_path / "run"
    options = ["--model-channels", "32", "--size", "32", "--disc-start", "1", "--run-dir", str(run_dir)]
    main(["train", "ldm-emoji", "--data-dir", str(captioned), *SMALL, *options])
    assert '"d_weight"' in (run_dir / "autoencoder" / "metrics.jsonl").read_text()
    capsys.readouterr()
    model, sizes = load_run(run_dir)
    one, other = (draw(model, sizes, [caption], seed=0, steps=2) for caption in ("a square", "ein Bär"))
    assert not torch.equal(one, other)
    main(["sample", str(run_dir), "--prompt", "ein Bär", "--count", "1", "--steps", "2"])
    assert capsys.readouterr().out.strip().endswith("ein-Bär-seed-0.png")
    with pytest.raises(SystemExit):
        main(["sample", str(run_dir), "--class", "1"])
    assert "use --prompt" in capsys.readouterr().err


def test_a_kind_of_n_captions_is_seen_as_often_as_the_square_root_of_n() -> None:
    captions = ["red apple", "pilot", "pilot, dark skin tone", "man: bald", "pilot, light skin tone", "man", "pilot: a"]
    weights = kind_weights(captions)
    assert weights == pytest.approx([1, 1 / 2, 1 / 2, 2**-0.5, 1 / 2, 2**-0.5, 1 / 2])


@pytest.mark.parametrize(("recipe", "options"), [("dit-mnist", []), ("dit-ldm-mnist", SMALL[:2])])
def test_a_transformer_trains_on_pixels_and_on_latents(recipe: str, options: list[str], digits: Path, tmp_path) -> None:
    small = [*options, *SMALL[2:], "--dim", "32", "--depth", "1", "--run-dir", str(tmp_path)]
    main(["train", recipe, "--data-dir", str(digits), *small])
    model, sizes = load_run(tmp_path)
    one, other = (draw(model, sizes, torch.tensor([label]), seed=0, steps=2) for label in (1, 2))
    assert not torch.equal(one, other)
