"""Solvers that are fitted to the model of a run: nearer to precise samples, and kept for the weights they belong to."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.recipes import fitting
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.fitting import with_fitted_sampler
from diffusion_labs.recipes.image_diffusion import ImageModel
from diffusion_labs.recipes.latent_model import LatentModel
from diffusion_labs.recipes.model_sizes import ModelSizes

PIXELS = ImageModel((1, 8, 8), ("nought", "one"), model_channels=32, channel_mult=(1,), attention_levels=())
LATENTS = LatentModel(
    (1, 16, 16), ("nought", "one"), model_channels=32, channel_mult=(1,), attention_levels=(), condition_width=32
)
STEPS, SCALE = 4, 2.0
CLASSES = torch.arange(8) % 2


def build(sizes: ModelSizes, seed: int = 0) -> nn.Module:
    """A model; that of pixels is exact for a Gaussian of each class."""
    torch.manual_seed(seed)
    model = sizes.build().eval()
    if sizes is PIXELS:
        means = torch.randn(2, *sizes.image_shape) / 2
        exact = dl.IdealDenoiser(model.predictor, means, 0.2, classes=[0, 1])
        exact.place = nn.Parameter(torch.zeros(()))  # the weight whose device is the model's
        model.model = dl.CFGuidance(exact, {"class": 0.1}).eval()
    return model


def sampled(model: nn.Module, sizes: ModelSizes, **options: object) -> Tensor:
    return draw(model, sizes, CLASSES, seed=0, guidance_scale=SCALE, steps=STEPS, **options)


def test_fitted_samples_are_nearer_to_precise_ones_than_others_of_as_many_calls() -> None:
    """On other noise than that of the fit; the model keeps its own sampler and settings."""
    model = build(PIXELS)
    precise = draw(model, PIXELS, CLASSES, seed=0, guidance_scale=SCALE, steps=500)
    fitted = with_fitted_sampler(model, PIXELS, torch.arange(16) % 2, steps=STEPS, guidance_scale=SCALE)
    error = (sampled(fitted, PIXELS) - precise).norm()
    for other in (dl.DDIMSampler, dl.DPMSolverPP2MSampler, dl.UniPCSampler):
        assert error < 0.5 * (sampled(model, PIXELS, sampler=other) - precise).norm()
    assert type(model) is dl.DDIMSampler
    assert model.model.guidance_scale == 1


@pytest.mark.parametrize("sizes", [PIXELS, LATENTS], ids=["pixels", "latents"])
def test_weights_are_kept_for_the_model_they_were_fitted_to(
    sizes: ModelSizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "PRECISE_STEPS", 20)
    model, choice = build(sizes), {"steps": STEPS, "guidance_scale": SCALE, "folder": tmp_path / "fitted"}
    first = with_fitted_sampler(model, sizes, CLASSES, **choice)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_fit", lambda *_: pytest.fail("fitted again"))
        again = with_fitted_sampler(model, sizes, CLASSES, **choice)
        assert torch.equal(sampled(again, sizes), sampled(first, sizes))
    for other, changed in ((build(sizes, seed=1), {}), (model, {"guidance_scale": 3.0}), (model, {"steps": 5})):
        with_fitted_sampler(other, sizes, CLASSES, **{**choice, **changed})
    assert len(list((tmp_path / "fitted").iterdir())) == 4


def test_what_cannot_be_fitted_is_named() -> None:
    model = build(PIXELS)
    with pytest.raises(ValueError, match="is for few steps, at most 50, not 51"):
        with_fitted_sampler(model, PIXELS, CLASSES, steps=51, guidance_scale=1.0)
    with pytest.raises(ValueError, match="fitted sampler has weights for one model"):
        draw(model, PIXELS, CLASSES, seed=0, sampler=dl.FittedSampler)
