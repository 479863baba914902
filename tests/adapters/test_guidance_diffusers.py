"""The rules of guidance against those of diffusers."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.adapters.combinations import linear
from tests.catalogue import SCHEDULES

guiders = pytest.importorskip("diffusers.guiders")

SCALE = 4.0
T = torch.tensor([0, 500, 999])


@pytest.fixture
def passes() -> tuple[Tensor, Tensor, Tensor]:
    u, c, x = torch.randn(3, 3, 2, 4, 4)
    return u, c, x


def test_linear_guidance_is_that_of_every_guider(passes) -> None:
    """In its default formulation, ``u + s (c - u)``, for all three kinds of passes to move away from."""
    u, c, x = passes
    ours = linear(u, [c], [SCALE], x, T)
    config = {"auto_guidance_layers": [0], "dropout": 0.1}
    pag = {"guidance_scale": 1.0, "perturbed_guidance_layers": [0], "perturbed_guidance_start": 0.0}
    theirs = [
        guiders.ClassifierFreeGuidance(SCALE).forward(c, u).pred,
        guiders.AutoGuidance(SCALE, **config).forward(c, u).pred,
        guiders.PerturbedAttentionGuidance(perturbed_guidance_scale=SCALE, **pag).forward(c, None, u).pred,
    ]
    for other in theirs:
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescaling_is_theirs(passes, phi: float) -> None:
    u, c, x = passes
    theirs = guiders.ClassifierFreeGuidance(SCALE, guidance_rescale=phi).forward(c, u).pred
    torch.testing.assert_close(dl.GuidanceRescale(phi)(u, [c], [SCALE], x, T), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("norm_threshold", [1.0, 1e6])
@pytest.mark.parametrize("phi", [0.0, 0.7])
def test_projection_is_theirs(passes, eta: float, norm_threshold: float, phi: float) -> None:
    """Theirs acts on what it is given: x0, for a predictor of x0. Its "original formulation" is c + (s - 1) d'."""
    u, c, x = passes
    projected = dl.AdaptiveProjectedGuidance(
        dl.TargetPredictor(SCHEDULES["cosine"]()), eta=eta, norm_threshold=norm_threshold
    )
    theirs = (
        guiders.AdaptiveProjectedGuidance(
            SCALE - 1,
            adaptive_projected_guidance_rescale=norm_threshold,
            eta=eta,
            guidance_rescale=phi,
            use_original_formulation=True,
        )
        .forward(c, u)
        .pred
    )
    ours = dl.GuidanceRescale(phi, projected)(u, [c], [SCALE], x, T)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
