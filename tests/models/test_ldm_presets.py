"""The sizes and settings of released systems, on the meta device."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.models.ldm import presets


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


VQ_F4, VQ_F4_NOATTN, VQ_F8, KL_F8 = 55.3, 53.2, 67.7, 83.7  # encoder and decoder, without codes

# The network and the autoencoder in millions, betas, scale, and the largest latent for an image of this size
SYSTEMS: dict[str, tuple[Callable[[], dl.LatentDiffusion], float, float, tuple[float, float], float, list[int]]] = {
    "celebahq": (presets.ldm_celebahq, 274.1, VQ_F4, (0.0015, 0.0195), 1.0, [3, 64, 64]),
    "churches": (presets.ldm_lsun_churches, 295.0, KL_F8, (0.0015, 0.0155), 1.0, [4, 32, 32]),
    "imagenet_f8": (presets.ldm_imagenet_f8, 395.0, VQ_F8, (0.0015, 0.0195), 1.0, [4, 32, 32]),
    "imagenet": (presets.ldm_imagenet, 400.9, VQ_F4, (0.0015, 0.0195), 1.0, [3, 64, 64]),
    "text2img_large": (presets.ldm_text2img_large, 872.3, KL_F8, (0.00085, 0.012), 0.18215, [4, 32, 32]),
    "text2img256": (presets.ldm_text2img256, 403.6, VQ_F4, (0.0015, 0.0195), 1.0, [3, 64, 64]),
    "layout": (presets.ldm_layout, 246.3, VQ_F4, (0.0015, 0.0205), 1.0, [3, 64, 64]),
    "super_resolution": (presets.ldm_super_resolution, 113.6, VQ_F4, (0.0015, 0.0155), 1.0, [3, 64, 64]),
    "inpainting": (presets.ldm_inpainting, 387.2, VQ_F4_NOATTN, (0.0015, 0.0205), 1.0, [3, 64, 64]),
    "semantic": (presets.ldm_semantic_synthesis, 215.2, VQ_F4, (0.0015, 0.0205), 1.0, [3, 64, 64]),
    "sd1": (presets.stable_diffusion_1, 859.5, KL_F8, (0.00085, 0.012), 0.18215, [4, 32, 32]),
    "sd2": (presets.stable_diffusion_2, 865.9, KL_F8, (0.00085, 0.012), 0.18215, [4, 32, 32]),
}

CONDITIONS = {
    "imagenet_f8": {"class": [1]},
    "imagenet": {"class": [1]},
    "text2img_large": {"text": [1, 77, 1280]},
    "text2img256": {"text": [1, 77, 640]},
    "layout": {"layout": [1, 92, 512]},
    "super_resolution": {"low_resolution": [1, 3, 64, 64]},
    "inpainting": {"masked_image": [1, 3, 256, 256], "mask": [1, 1, 256, 256]},
    "semantic": {"segmentation": [1, 182, 256, 256]},
    "sd1": {"text": [1, 77, 768]},
    "sd2": {"text": [1, 77, 1024]},
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_released_systems_have_their_sizes_betas_and_scale(name: str) -> None:
    build, network, autoencoder, (first, last), scale, latent = SYSTEMS[name]
    with torch.device("meta"):
        system = build()
        prior = system.sample_prior(1, (256, 256))
    codes = sum(value.numel() for key, value in system.autoencoder.named_parameters() if "codebook" in key) / 1e6
    assert prior.shape[1:] == torch.Size(latent)
    assert all(parameter.is_meta for parameter in system.parameters())
    assert millions(system.sampler.model) == pytest.approx(network, abs=0.05)
    assert millions(system.autoencoder) - codes == pytest.approx(autoencoder, abs=0.05)
    assert system.scale.scale.item() == pytest.approx(scale)

    alpha, _, _ = system.sampler.schedule.coefficients(torch.tensor([0, 999], device="cpu"))
    betas = torch.linspace(first**0.5, last**0.5, 1000, dtype=torch.float64) ** 2
    products = (1 - betas).cumprod(0)
    torch.testing.assert_close(alpha**2, products[[0, -1]], rtol=1e-9, atol=0)
    predictor = dl.VPredictor if name == "sd2" else dl.NoisePredictor
    assert type(system.sampler.predictor) is predictor


# Each has the conditions of another that is here, or has none and the autoencoder of another; see `make test-slow`.
LIKE_ANOTHER = ("churches", "imagenet_f8", "text2img_large", "sd2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_ANOTHER else []) for name in SYSTEMS]
)
def test_released_systems_take_their_conditions(name: str) -> None:
    with torch.device("meta"):
        system = SYSTEMS[name][0]().train()
        x = system.sample_prior(1, (256, 256))
        given = {
            key: torch.zeros(shape, dtype=torch.long if key == "class" else torch.float32)
            for key, shape in CONDITIONS.get(name, {}).items()
        }
        output = system(x, torch.zeros(1, dtype=torch.long), given)
    assert output.prediction.shape == x.shape


def test_the_text_encoder_of_stable_diffusion_1_fits() -> None:
    """CLIP ViT-L/14 of transformers: 123.06 million, and with the rest the 1066 of the whole."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        system = presets.stable_diffusion_1(dl.CLIPTextEncoder(CLIPTextModel(config))).train()
        x = system.sample_prior(1, (512, 512))
        ids = torch.zeros(1, 77, dtype=torch.long)
        given = {"caption": ids, "negative_caption": ids}
        output = system(x, torch.zeros(1, dtype=torch.long), given)
    assert output.prediction.shape == x.shape == (1, 4, 64, 64)
    assert millions(system.conditioner) == pytest.approx(123.06, abs=0.01)
    assert millions(system) == pytest.approx(859.52 + 83.65 + 123.06, abs=0.02)


def test_inpainting_of_stable_diffusion_has_its_nine_channels() -> None:
    with torch.device("meta"):
        system = presets.stable_diffusion_1_inpainting().train()
        x = system.sample_prior(1, (64, 64))
        given = {"masked_image": torch.zeros(1, 3, 64, 64), "mask": torch.ones(1, 1, 64, 64)}
        output = system(x, torch.zeros(1, dtype=torch.long), {**given, "text": torch.zeros(1, 77, 768)})
    assert output.prediction.shape == x.shape
    assert millions(system.sampler.model) == pytest.approx(859.54, abs=0.01)
    assert system.sampler.model.model.join is dl.mask_then_image
