"""The two upsamplers of DALL-E 2, from small images to large ones."""

from typing import Unpack

from torch import nn

from diffusion_labs.adapters import SuperResolution
from diffusion_labs.models.adm_unet import adm_unet
from diffusion_labs.models.dalle2.unet_sizes import DALLE2_UNETS
from diffusion_labs.predictors import NoisePredictor, Predictor, StaticClamp
from diffusion_labs.samplers import DDIMSampler
from diffusion_labs.samplers.sampler import SamplerOptions
from diffusion_labs.schedules import (
    DiscreteGaussianSchedule,
    Schedule,
    cosine_beta_schedule,
    linear_beta_schedule,
)


def dalle2_upsampler_256(
    network: nn.Module | None = None,
    *,
    predictor: type[Predictor] = NoisePredictor,
    **options: Unpack[SamplerOptions],
) -> DDIMSampler:
    """Build the upsampler from 64 to 256 pixels (arXiv 2204.06125, section 2.1 and Table 3).

    It is trained on crops of 64 pixels of images of 256, ``RandomCrop(64, multiple=4)``, and on a low resolution that
    is blurred, ``SuperResolutionTransform(16, blur_sigma=(0.6, 0.6))``. As the network has no attention, it takes
    images of any size. There is no guidance: the image of low resolution is all that it knows.

    Args:
        network: takes an image of three channels and one of low resolution concatenated to it. The paper's, at
            random, if ``None``; one of other sizes is
            ``adm_unet(**(DALLE2_UNETS["upsampler_64_256"] | {"model_channels": 32}))``.
        predictor: what the network predicts; ``VPredictor`` is learnt in fewer updates than the paper's noise.
        **options: see ``Sampler``; 27 steps by default.
    """
    schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
    return _upsampler("upsampler_64_256", network, schedule, predictor, {"eval_steps": 27, **options})


def dalle2_upsampler_1024(
    network: nn.Module | None = None,
    *,
    predictor: type[Predictor] = NoisePredictor,
    **options: Unpack[SamplerOptions],
) -> DDIMSampler:
    """Build the upsampler from 256 to 1024 pixels (arXiv 2204.06125, section 2.1 and Table 3).

    It is trained on crops of 256 pixels of images of 1024, ``RandomCrop(256, multiple=4)``, and on a low resolution
    with diverse faults: ``SuperResolutionTransform(64)``, then ``BSRDegradation()``.

    Args:
        network: as for ``dalle2_upsampler_256``, of ``DALLE2_UNETS["upsampler_256_1024"]``.
        predictor: what the network predicts; ``VPredictor`` is learnt in fewer updates than the paper's noise.
        **options: see ``Sampler``; 15 steps by default.
    """
    schedule = DiscreteGaussianSchedule(linear_beta_schedule(1000))
    return _upsampler("upsampler_256_1024", network, schedule, predictor, {"eval_steps": 15, **options})


def _upsampler(
    sizes: str, network: nn.Module | None, schedule: Schedule, predictor: type[Predictor], options: SamplerOptions
) -> DDIMSampler:
    network = adm_unet(**DALLE2_UNETS[sizes]) if network is None else network
    return DDIMSampler(SuperResolution(network), schedule, predictor(schedule, clamp=StaticClamp()), **options)
