"""The systems of Latent Diffusion and Stable Diffusion, with random weights: what their checkpoints are loaded into."""

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusion_labs.models.encoders import CLIPTextEncoder, LDMTextEncoder
from diffusion_labs.models.encoders.tokenizer import import_transformers
from diffusion_labs.models.ldm import (
    LatentDiffusion,
    ldm_celebahq,
    ldm_imagenet,
    ldm_imagenet_f8,
    ldm_inpainting,
    ldm_layout,
    ldm_lsun_churches,
    ldm_semantic_synthesis,
    ldm_super_resolution,
    ldm_text2img256,
    ldm_text2img_large,
    stable_diffusion_1,
    stable_diffusion_1_inpainting,
    stable_diffusion_2,
)

# CLIP ViT-L/14, and OpenCLIP ViT-H/14 without the last layer, which is not used
_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
_OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}


def _with_clip(system: Callable[..., LatentDiffusion], sizes: dict[str, Any]) -> LatentDiffusion:
    transformers = import_transformers("CLIPTextEncoder")
    return system(CLIPTextEncoder(transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes))))


def _with_text(system: Callable[..., LatentDiffusion], **sizes: Any) -> LatentDiffusion:
    return system(LDMTextEncoder(**sizes))


# By the names of ``LDM_UNETS``. Text encoders are without a tokenizer: checkpoints hold none.
SYSTEMS: dict[str, Callable[[], LatentDiffusion]] = {
    "celebahq": ldm_celebahq,
    "lsun_churches": ldm_lsun_churches,
    "cin256": ldm_imagenet_f8,
    "cin256_v2": ldm_imagenet,
    "txt2img_large": partial(_with_text, ldm_text2img_large),
    "text2img256": partial(_with_text, ldm_text2img256, width=640),
    "layout2img_openimages256": partial(
        _with_text, ldm_layout, width=512, depth=16, num_tokens=8192, max_length=92, name="layout"
    ),
    "bsr_sr": ldm_super_resolution,
    "inpainting_big": ldm_inpainting,
    "semantic_synthesis": ldm_semantic_synthesis,
    "stable_diffusion_1": partial(_with_clip, stable_diffusion_1, _CLIP_L),
    "stable_diffusion_1_inpainting": partial(_with_clip, stable_diffusion_1_inpainting, _CLIP_L),
    "stable_diffusion_2": partial(_with_clip, stable_diffusion_2, _OPEN_CLIP_H),
}
