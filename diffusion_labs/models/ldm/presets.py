"""The systems of the Latent Diffusion paper (arXiv 2112.10752) and Stable Diffusion, with random weights.

Sizes and schedules are those of the released configurations. Each builds on the meta device, too:
``with torch.device("meta"): stable_diffusion_1()``. A text encoder is a part: without one, a system for texts takes
their encoding as ``text``. Options are those of ``DDIMSampler``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from diffusion_labs.adapters import CFGuidance, Concatenation, InPainting, image_then_signed_mask, mask_then_image
from diffusion_labs.models.autoencoder import kl_f8, vq_f4, vq_f4_noattn, vq_f8
from diffusion_labs.models.encoders import ClassEmbedding, Conditioner, SpatialRescaler
from diffusion_labs.models.ldm.latent_diffusion import LatentDiffusion
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.models.ldm.unet import ldm_unet
from diffusion_labs.models.ldm.unet_sizes import LDM_UNETS
from diffusion_labs.predictors import NoisePredictor, Predictor, VPredictor
from diffusion_labs.samplers import DDIMSampler
from diffusion_labs.schedules import DiscreteGaussianSchedule, Schedule, scaled_linear_beta_schedule

Wrap = Callable[[nn.Module], nn.Module]


def _unchanged(network: nn.Module) -> nn.Module:
    return network


def _system(
    sizes: str,
    autoencoder: nn.Module,
    *,
    betas: tuple[float, float],
    adapt: Wrap = _unchanged,
    conditions: dict[str, nn.Module] | None = None,
    scale: float = 1.0,
    encoded: tuple[str, ...] = (),
    predictor: Callable[[Schedule], Predictor] = NoisePredictor,
    options: dict[str, Any],
) -> LatentDiffusion:
    """A system from the name of its network in ``LDM_UNETS``, with 1000 steps from the first beta to the last."""
    schedule = DiscreteGaussianSchedule(scaled_linear_beta_schedule(1000, *betas))
    network = adapt(ldm_unet(**LDM_UNETS[sizes]))
    sampler = DDIMSampler(network, schedule, predictor(schedule), **{"eval_steps": 50, **options})
    conditioner = Conditioner(conditions or {})
    return LatentDiffusion(autoencoder, sampler, conditioner, LatentScale(scale=scale), encoded=encoded)


def _guided(name: str, scale: float, network: nn.Module) -> CFGuidance:
    return CFGuidance(network, {name: 0.1}, guidance_scale=scale)


def ldm_celebahq(**options: Any) -> LatentDiffusion:
    """Faces, without conditions; FFHQ and LSUN bedrooms have the same sizes."""
    return _system("celebahq", vq_f4(), betas=(0.0015, 0.0195), options=options)


def ldm_lsun_churches(**options: Any) -> LatentDiffusion:
    """Churches, without conditions. Its scale was measured, and is in the checkpoint."""
    return _system("lsun_churches", kl_f8(), betas=(0.0015, 0.0155), options=options)


def ldm_imagenet_f8(**options: Any) -> LatentDiffusion:
    """ImageNet's 1000 classes by cross-attention ("cin256"); the network without guidance, and without a null class."""
    classes = ClassEmbedding(1000, 512)
    return _system("cin256", vq_f8(), betas=(0.0015, 0.0195), conditions={"class": classes}, options=options)


def ldm_imagenet(**options: Any) -> LatentDiffusion:
    """ImageNet's 1000 classes by cross-attention, guided at the paper's scale 1.5 ("cin256-v2")."""
    return _system(
        "cin256_v2",
        vq_f4(),
        betas=(0.0015, 0.0195),
        adapt=partial(_guided, "class_token", 1.5),
        conditions={"class": ClassEmbedding(1000, 512)},
        options=options,
    )


def ldm_text2img_large(text_encoder: nn.Module | None = None, **options: Any) -> LatentDiffusion:
    """LAION's captions, encoded to 77 tokens of width 1280 by ``LDMTextEncoder(1280)`` ("txt2img-1p4B")."""
    return _text_system("txt2img_large", text_encoder, kl_f8(), scale=0.18215, guidance_scale=5.0, options=options)


def ldm_text2img256(text_encoder: nn.Module | None = None, **options: Any) -> LatentDiffusion:
    """Captions, encoded to tokens of width 640 by ``LDMTextEncoder(640)``."""
    return _text_system(
        "text2img256", text_encoder, vq_f4(), betas=(0.0015, 0.0195), guidance_scale=1.0, options=options
    )


def ldm_layout(layout_encoder: nn.Module | None = None, **options: Any) -> LatentDiffusion:
    """Boxes with classes of OpenImages, encoded to 92 tokens of width 512: the condition ``layout``."""
    encoders = {} if layout_encoder is None else {"boxes": layout_encoder}
    return _system("layout2img_openimages256", vq_f4(), betas=(0.0015, 0.0205), conditions=encoders, options=options)


def ldm_super_resolution(**options: Any) -> LatentDiffusion:
    """Four times the size: ``low_resolution``, an image as large as the latents, stands beside them."""
    adapt = partial(Concatenation, channels={"low_resolution": 3})
    return _system("bsr_sr", vq_f4(), betas=(0.0015, 0.0155), adapt=adapt, options=options)


def ldm_inpainting(**options: Any) -> LatentDiffusion:
    """Images with holes: ``masked_image`` in pixels, encoded here, and ``mask`` ("inpainting_big").

    The released network was trained with holes that are black: -1.
    """
    return _system(
        "inpainting_big",
        vq_f4_noattn(),
        betas=(0.0015, 0.0205),
        adapt=partial(InPainting, channels=3, join=image_then_signed_mask),
        encoded=("masked_image",),
        options=options,
    )


def ldm_semantic_synthesis(**options: Any) -> LatentDiffusion:
    """Maps of 182 classes, ``segmentation``, one channel each and four times the size of the latents."""
    return _system(
        "semantic_synthesis",
        vq_f4(),
        betas=(0.0015, 0.0205),
        adapt=partial(Concatenation, channels={"map": 3}),
        conditions={"segmentation": SpatialRescaler(2, 182, 3)},
        options=options,
    )


def stable_diffusion_1(text_encoder: nn.Module | None = None, **options: Any) -> LatentDiffusion:
    """Stable Diffusion 1: the states of CLIP ViT-L/14 after the final norm, noise prediction."""
    return _text_system("stable_diffusion_1", text_encoder, kl_f8(), scale=0.18215, options=options)


def stable_diffusion_1_inpainting(text_encoder: nn.Module | None = None, **options: Any) -> LatentDiffusion:
    """Stable Diffusion 1 for images with holes: ``masked_image`` in pixels, encoded here, and ``mask``."""
    return _text_system(
        "stable_diffusion_1_inpainting",
        text_encoder,
        kl_f8(),
        scale=0.18215,
        inner=partial(InPainting, channels=4, join=mask_then_image),
        encoded=("masked_image",),
        options=options,
    )


def stable_diffusion_2(
    text_encoder: nn.Module | None = None, *, predictor: Callable[[Schedule], Predictor] = VPredictor, **options: Any
) -> LatentDiffusion:
    """Stable Diffusion 2 for 768 pixels, which predicts v; ``predictor=NoisePredictor`` is the base model for 512.

    Its text encoder is OpenCLIP's ViT-H/14, of which it takes ``normalised_penultimate_states``.
    """
    return _text_system(
        "stable_diffusion_2", text_encoder, kl_f8(), scale=0.18215, predictor=predictor, options=options
    )


def _text_system(
    sizes: str,
    text_encoder: nn.Module | None,
    autoencoder: nn.Module,
    *,
    betas: tuple[float, float] = (0.00085, 0.012),
    guidance_scale: float = 7.5,
    inner: Wrap = _unchanged,
    **rest: Any,
) -> LatentDiffusion:
    """A system with guidance for the condition ``caption``, which the text encoder makes ``text`` of."""
    return _system(
        sizes,
        autoencoder,
        betas=betas,
        adapt=lambda network: _guided("text", guidance_scale, inner(network)),
        conditions={} if text_encoder is None else {"caption": text_encoder},
        **rest,
    )
