"""The systems of Stable Diffusion 1 and 2, with random weights: what their checkpoints are loaded into."""

from collections.abc import Callable
from typing import Any

from diffusion_labs.models.encoders import CLIPTextEncoder
from diffusion_labs.models.ldm import (
    LatentDiffusion,
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
TEXT: dict[str, dict[str, Any]] = {
    "stable_diffusion_1": _CLIP_L,
    "stable_diffusion_1_inpainting": _CLIP_L,
    "stable_diffusion_2": _OPEN_CLIP_H,
}


SYSTEMS: dict[str, Callable[..., LatentDiffusion]] = {
    "stable_diffusion_1": stable_diffusion_1,
    "stable_diffusion_1_inpainting": stable_diffusion_1_inpainting,
    "stable_diffusion_2": stable_diffusion_2,
}


def stable_diffusion(name: str) -> LatentDiffusion:
    """The system of a name in ``SYSTEMS``, with a text encoder without a tokenizer: checkpoints hold none.

    Raises:
        ImportError: naming the extra, without transformers.
    """
    try:
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError as error:
        raise ImportError("the text encoder needs transformers; pip install 'diffusion-labs[text]'") from error
    return SYSTEMS[name](CLIPTextEncoder(CLIPTextModel(CLIPTextConfig(**TEXT[name]))))
