"""Runs as programs that PyTorch runs alone."""

from pathlib import Path

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.cli import main
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.latent_model import LatentModel
from diffusion_labs.recipes.program import write_program
from diffusion_labs.recipes.restoration import SuperResolutionModel
from diffusion_labs.recipes.run import load_run
from tests.catalogue import randomise
from tests.cli.conftest import digits_run  # noqa: F401  (a fixture)


@pytest.mark.slow
def test_a_converted_run_draws_what_sample_draws(digits_run: Path, tmp_path: Path) -> None:  # noqa: F811
    """Without ``--guidance-scale`` it is that of ``sample``."""
    file = tmp_path / "digits.pt2"
    main(["convert", str(digits_run), str(file)])
    model, sizes = load_run(digits_run)
    labels, noise = torch.arange(3), model.schedule.sample_prior((3, *sizes.image_shape), dl.seeded(range(5, 8)))
    images = torch.export.load(file).module()(noise, {"class": labels}).clamp(-1, 1)
    torch.testing.assert_close(images, draw(model, sizes, labels, seed=5, guidance_scale=2.0), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_latent_model_of_classes_encodes_and_decodes_in_the_program(tmp_path: Path) -> None:
    sizes = LatentModel((1, 16, 16), ("a", "b", "c"), autoencoder_channels=(8, 8), model_channels=32)
    model = randomise(sizes.build()).eval()
    model.sampler.eval_steps = 5
    write_program(model, tmp_path / "latent.pt2", sizes, write=dl.export_sampler, guidance_scale=1.5)
    assert model.sampler.eval_steps == 5
    labels, noise = torch.tensor([2, 0, 1]), model.sample_prior(3, (16, 16), dl.seeded(range(3)))
    images = torch.export.load(tmp_path / "latent.pt2").module()(noise, {"class": labels}).clamp(-1, 1)
    torch.testing.assert_close(images, draw(model, sizes, labels, seed=0, guidance_scale=1.5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (LatentModel((1, 16, 16), captions=True), "draws from captions, and a program takes no texts"),
        (SuperResolutionModel((1, 16, 16), ()), "restores images and needs"),
    ],
)
def test_what_a_program_cannot_be_told_is_refused(sizes: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_program(torch.nn.Identity(), tmp_path / "a.pt2", sizes, write=dl.export_sampler, guidance_scale=1.0)
