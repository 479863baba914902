"""The first stages of DALL-E 2, two updates each: what each leaves, and that a stop costs nothing."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_labs.cli import main
from diffusion_labs.data import EncodedDataset
from diffusion_labs.models.encoders import CLIP
from diffusion_labs.models.ldm import LatentScale
from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.latent_diffusion import dataset_images
from diffusion_labs.recipes.mnist_captions import captioned_mnist
from diffusion_labs.recipes.run import load_run
from diffusion_labs.training import TrainOptions, latest_checkpoint, load_checkpoint
from tests.cli.test_cli import write_idx

SMALL = ["--steps", "2", "--batch-size", "8", "--size", "16"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx(tmp_path_factory.mktemp("data") / "idx")


@pytest.fixture(scope="module")
def whole_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "prior"
    options = ["--data-dir", str(digits), *SMALL, "--clip-steps", "2", "--run-dir", str(folder)]
    main(["train", "dalle2-mnist-prior", *options])
    return folder


def test_each_stage_leaves_its_folder_and_the_prior_its_embeddings(whole_run: Path, digits: Path) -> None:
    assert Image.open(whole_run / "prior" / "samples" / "step-00000002.png").size[0] > 300
    prior, sizes = load_run(whole_run)
    clip, stored = prior.conditioner.encoders["caption"], EncodedDataset(whole_run / "embeddings")
    dataset = captioned_mnist(digits, 16)
    assert [stored[i]["caption"] for i in (0, 7)] == ["a photo of the digit zero", "3"]
    z = torch.stack([sample["image_embedding"] for sample in stored])
    with torch.no_grad():
        torch.testing.assert_close(z, clip.encode_image(dataset_images(dataset, range(40))))
    standard = prior.scale.normalize(z)
    torch.testing.assert_close(standard.std(0), torch.ones(sizes.embed_dim), rtol=1e-3, atol=0)
    prior.sampler.eval_steps, prior.sampler.progress_bar = 2, False
    sample = prior.sample({"caption": ["3", "three"]}, generator=seeded([0, 1]))
    torch.testing.assert_close(sample.norm(dim=1), torch.ones(2))


def test_a_prior_draws_no_images(whole_run: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["sample", str(whole_run)])
    assert "a PriorModel draws no images" in capsys.readouterr().err


def test_going_on_is_the_same_run_to_the_bit_and_measures_nothing_again(
    whole_run: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusion_labs.recipes.dalle2_mnist_prior import dalle2_mnist_prior

    stages = dalle2_mnist_prior(digits, clip_steps=2, steps=2, batch_size=8, size=16)
    stages.until("embeddings").carry_out(tmp_path, TrainOptions())
    assert not (tmp_path / "prior").exists()
    stages.carry_out(tmp_path, TrainOptions(resume=True))
    ours, theirs = (final_state(folder / "prior") for folder in (tmp_path, whole_run))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())

    def fail(*_: object, **__: object) -> LatentScale:
        raise AssertionError("measured again")

    monkeypatch.setattr(LatentScale, "of", fail)
    stages.carry_out(tmp_path, TrainOptions(resume=True))


def final_state(stage_dir: Path) -> dict[str, torch.Tensor]:
    newest = latest_checkpoint(stage_dir / "checkpoints")
    assert newest is not None
    return load_checkpoint(newest, ("ema",))["ema"]["model"]


def test_clip_alone(digits: Path, tmp_path: Path, capsys) -> None:
    main(["train", "dalle2-mnist-clip", "--data-dir", str(digits), *SMALL, "--run-dir", str(tmp_path / "run")])
    assert "Draw from it" not in capsys.readouterr().out
    clip, sizes = load_run(tmp_path / "run")
    assert isinstance(clip, CLIP)
    assert clip.encode_image(torch.zeros(1, *sizes.image_shape)).shape == (1, sizes.embed_dim)
    assert '"accuracy"' in (tmp_path / "run" / "clip" / "metrics.jsonl").read_text()
