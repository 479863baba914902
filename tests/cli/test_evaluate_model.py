"""What `evaluate` says of a model itself: as the functions say that it calls, or that it does not apply."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.cli import UserError, main
from diffusion_labs.cli.model_measures import Wanted, model_table, noised
from diffusion_labs.data import Digits
from diffusion_labs.images import image_grid, save_image
from diffusion_labs.metrics import clip_score, loss_per_level, train_classifier
from diffusion_labs.metrics.interval import student_quantile
from diffusion_labs.models.encoders import TransformersCLIP, bpe_tokenizer
from diffusion_labs.recipes.any_images import AnyImages, load_images
from diffusion_labs.recipes.dalle2 import DALLE2Model
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.model_sizes import NoisedData
from diffusion_labs.recipes.run import load_run
from tests.data.tars import png, write_tar


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four digits of each of three classes, which come in another order than the model's."""
    root = tmp_path_factory.mktemp("digits")
    digits = Digits()
    for label in (1, 3, 7):
        for i, image in enumerate(digits.images[digits.labels == label][:24]):
            save_image(root / str(label) / f"{i}.png", image_grid(image[None].float() / 127.5 - 1, padding=0))
    return root


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_labs.cli.evaluation_card.train_classifier", partial(train_classifier, steps=30))


def card_of(tmp_path: Path, *words: object) -> dict[str, Any]:
    main(["evaluate", *map(str, words), "--out", str(tmp_path / "card.json")])
    return json.loads((tmp_path / "card.json").read_text())


def interval(values: torch.Tensor, level: float = 0.95) -> Any:
    deviations = student_quantile(level, len(values) - 1)
    mean, reach = values.mean().item(), deviations * values.std().item() / len(values) ** 0.5
    return pytest.approx({"value": mean, "low": mean - reach, "high": mean + reach}, rel=1e-5)


def numbers(found: dict[str, Any]) -> dict[str, float]:
    return {name: found[name] for name in ("value", "low", "high")}


def test_the_card_has_the_loss_at_noise_levels_without_guidance(digits_run, folder, tmp_path, capsys) -> None:
    words = ["--reference", folder, "--count", 12, "--steps", 2, "--seed", 3, "--guidance-scale", 3, "--level", 0.8]
    found = card_of(tmp_path, digits_run, *words, "--levels", 4)["loss_per_level"]
    model, _ = load_run(digits_run)
    real = load_images(folder, 8, 1, seed=3)
    classes = torch.tensor([1, 3, 7])[real.labels[:12]]
    x0 = real.images[:12].float() / 127.5 - 1
    expected = loss_per_level(model, x0, {"class": classes}, levels=4, seed=3)
    assert (found["images"], found["of"], found["conditional_inputs"]) == (12, "pixels", ["class"])
    assert [row["log_snr"] for row in found["levels"]] == expected.log_snr.tolist()
    for row, x0_error, noise_error in zip(found["levels"], expected.x0, expected.noise, strict=True):
        assert row["x0"] == interval(x0_error, 0.8)
        assert row["noise"] == interval(noise_error, 0.8)
    assert "squared error of pixels of 12 real images" in capsys.readouterr().out


def test_the_bits_of_pixels_that_are_gaussian_are_their_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their Jacobian is diagonal, for which the estimate of the trace is exact; and batches do not matter."""
    monkeypatch.setattr("diffusion_labs.cli.model_measures.BATCH_SIZE", 2)
    mean, std = torch.rand(1, 1, 2, 3) - 0.5, torch.rand(1, 1, 2, 3) + 0.5
    schedule = dl.RectifiedFlowSchedule()
    predictor = dl.FlowPredictor(schedule)
    model = dl.CFGuidance(dl.IdealDenoiser(predictor, mean, std), {})
    sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=2).eval()
    x0 = torch.randint(0, 256, (6, 1, 2, 3)) / 127.5 - 1
    found = Wanted(levels=0, likelihood=5).measure(sampler, NoisedData(x0, {}, pixels=True), 6, 7, 0.9)
    noise = torch.stack([torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(7 + i)) for i in range(5)])
    nats = torch.distributions.Normal(mean, std).log_prob(x0[:5] + (noise - 0.5) * 2 / 255).flatten(1).sum(1)
    expected = -(nats / math.log(2) / 6) - math.log2(2 / 255)
    assert list(found) == ["bits_per_dimension"]
    values = numbers(found["bits_per_dimension"])
    assert list(values.values()) == pytest.approx(list(interval(expected, 0.9).expected.values()), rel=1e-3)


@pytest.mark.slow
def test_the_card_has_bits_per_dimension_on_request(digits_run, folder, tmp_path, capsys) -> None:
    words = ["--reference", folder, "--count", 12, "--steps", 2, "--levels", 0]
    card = card_of(tmp_path, digits_run, *words, "--likelihood", 2)
    assert "loss_per_level" not in card
    model, _ = load_run(digits_run)
    real = load_images(folder, 8, 1, seed=0)
    noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    steps = torch.stack([torch.rand(1, 8, 8, generator=generator) for generator in noise])
    x0 = (real.images[:2] + steps - 0.5) / 127.5 - 1
    given = {"class": torch.tensor([1, 3, 7])[real.labels[:2]]}
    nats = dl.log_likelihood(model, x0, given, trace=dl.HutchinsonTrace(x0, noise))
    expected = dl.bits_per_dimension(nats, x0, bin_width=2 / 255)
    values = numbers(card["bits_per_dimension"])
    assert list(values.values()) == pytest.approx(list(interval(expected).expected.values()), rel=1e-3)
    assert "bits per dimension of 2 real images" in capsys.readouterr().out


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four squares with captions in a tar."""
    files: dict[str, bytes | str] = {}
    for i in range(24):
        colour = (10 * i, 255 - 10 * i, 0, 255)
        files |= {f"{i}.png": png(colour, "RGBA"), f"{i}.txt": f"a square of colour {i}"}
    return write_tar(tmp_path_factory.mktemp("data") / "0.tar", files)


@pytest.fixture(scope="module")
def drawer(captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of latent diffusion from captions."""
    folder = tmp_path_factory.mktemp("runs") / "emoji"
    small = ["--autoencoder-steps", "2", "--steps", "2", "--batch-size", "8", "--model-channels", "32", "--size", "32"]
    main(["train", "ldm-emoji", "--data-dir", str(captioned), *small, "--run-dir", str(folder)])
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights, in a folder as transformers writes it."""
    transformers = pytest.importorskip("transformers", reason="has the CLIP")
    folder, tokenizer = tmp_path_factory.mktemp("clip"), bpe_tokenizer([])
    widths = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "max_position_embeddings": 32}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = transformers.CLIPConfig(
        text_config={**text, **ends, **widths},
        vision_config={"image_size": 16, "patch_size": 8, **widths},
        projection_dim=8,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Means(nn.Module):
    """Of the quarters of images of bytes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x.float() / 255, 16).flatten(1)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of features, as TorchScript."""
    path = tmp_path_factory.mktemp("features") / "small.pt"
    torch.jit.trace(Means(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).save(str(path))
    return path


def test_of_captions_the_card_has_the_loss_of_latents_and_the_score_by_clip(
    drawer, captioned, clip, features, tmp_path, capsys
) -> None:
    words = ["--reference", captioned, "--features", features, "--count", 12, "--steps", 2, "--seed", 5, "--levels", 2]
    card = card_of(tmp_path, drawer, *words, "--clip", clip)
    model, sizes = load_run(drawer)
    real = load_images(captioned, 32, 3, seed=5)
    x = real.images[:12].float() / 127.5 - 1
    with torch.no_grad():
        latents = model.encode(x, dl.seeded(range(5, 17)))
        inputs = model.condition({"caption": real.captions[:12]}, latents)
    expected = loss_per_level(model.sampler, latents, inputs, levels=2, seed=5)
    found = card["loss_per_level"]
    assert found["of"] == "latents"
    assert "text" in found["conditional_inputs"]
    for row, error in zip(found["levels"], expected.x0, strict=True):
        assert numbers(row["x0"]) == interval(error)

    chosen = torch.randint(24, (12,), generator=torch.Generator().manual_seed(5)).tolist()
    captions = [real.captions[i] for i in chosen]
    judge = TransformersCLIP.from_pretrained(clip)
    scores = clip_score(draw(model, sizes, captions, seed=5, steps=2), captions, judge)
    assert numbers(card["clip_score"]) == interval(scores)
    assert card["clip_score"]["real"] == pytest.approx(clip_score(real.images[chosen], captions, judge).mean().item())
    printed = capsys.readouterr().out
    assert f"CLIP score {scores.mean().item():.5g}" in printed
    assert "squared error of latents of 12 real images" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{folder} --size 8 --likelihood 3", "--likelihood is for the model of a run"),
        ("{folder} --size 8 --levels 3", "--levels is for the model of a run"),
        ("{folder} --size 8 --clip {clip}", "--clip is for the model of a run"),
        ("{run} --likelihood 1", "from 2 to the 72 real images"),
        ("{run} --likelihood 99", "from 2 to the 72 real images"),
        ("{run} --levels -1", "--levels is -1"),
        ("{run} --clip {clip}", "takes no captions"),
        ("{drawer} --likelihood 3 --reference {captioned}", "not added to pixels"),
        ("{drawer} --clip /nowhere --reference {captioned}", "/nowhere, which is no folder"),
        ("{drawer} --clip {other} --reference {captioned}", "type 'bert'"),
    ],
)
def test_what_does_not_apply_is_refused_before_a_sample_is_drawn(
    digits_run, folder, drawer, captioned, clip, tmp_path, capsys, monkeypatch, words: str, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("sampled")

    monkeypatch.setattr("diffusion_labs.cli.evaluation_card.draw", fail)
    monkeypatch.setattr("diffusion_labs.cli.evaluation_card.evaluate", fail)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    places = {"folder": folder, "run": digits_run, "drawer": drawer, "captioned": captioned, "clip": clip}
    given = words.format(**places, other=tmp_path / "other").split()
    reference = [] if "--reference" in given else ["--reference", str(folder)]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *given, *reference, "--count", "10"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2
    assert message in said


def test_a_system_of_several_models_has_no_loss_of_its_own() -> None:
    sizes = DALLE2Model(image_shape=(1, 32, 32))
    real = AnyImages(torch.zeros(4, 1, 32, 32, dtype=torch.uint8), None, ["a", "b", "c", "d"], ())
    model = sizes.build()
    data = noised(model, sizes, real, 4, seed=0)
    with pytest.raises(UserError, match="system of several"):
        Wanted(levels=3).check(sizes, data, real)
    with pytest.raises(UserError, match="no likelihood"):
        Wanted(likelihood=2).check(sizes, data, real)
    assert Wanted().measure(model.decoder, data, 4, 0, 0.95) == {}
    assert model_table({}) == ""
