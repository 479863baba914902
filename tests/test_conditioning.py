"""What is given in the place of a tensor is named, with what to give instead."""

import jaxtyping
import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import TinyNetwork


@pytest.fixture(autouse=True)
def no_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside of tests, where types are not checked."""
    monkeypatch.setattr(type(jaxtyping.config), "jaxtyping_disable", True)


def test_a_number_is_no_time() -> None:
    network = dl.adm_unet(in_channels=1, model_channels=8, channel_mult=(1,), num_res_blocks=1, num_groups=4)
    for model in (network, dl.CFGuidance(network, {}), dl.CFGuidance(network, {}).eval()):
        with pytest.raises(ValueError, match=r"timestep is 5, but must be a tensor \[2\].*torch.full\(\(2,\), 5\)"):
            model(torch.randn(2, 1, 8, 8), 5)


def test_a_text_is_no_noise() -> None:
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    sampler = dl.DDIMSampler(TinyNetwork(), schedule, dl.VPredictor(schedule), eval_steps=2, progress_bar=False)
    autoencoder = dl.autoencoder_kl(in_channels=1, channels=(8,), latent_channels=1, num_res_blocks=1, num_groups=4)
    for system in (sampler, dl.LatentDiffusion(autoencoder, sampler)):
        with pytest.raises(TypeError, match=r"x is a str, not a tensor of noise; draw it by sample_prior"):
            system.eval()("a red cat")
        with pytest.raises(TypeError, match="timestep is a dict, not a tensor"):
            system(torch.randn(2, 1, 8, 8), {"class": torch.zeros(2)})
